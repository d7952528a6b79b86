"""Plans and batch jobs on a Ray cluster: actors make batches by their numbers, one execution of Ray Data carries them."""
