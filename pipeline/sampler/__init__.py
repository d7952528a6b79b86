"""The order of samples: schedule, permutation, class-balanced sampling, position. Integers only."""
