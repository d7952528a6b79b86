"""Who stands where: permutations, draws and positions; integers only."""
