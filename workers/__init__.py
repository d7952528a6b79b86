"""Where a plan runs: the local job runner here, Ray in the folders. The only folder that may import ray."""
