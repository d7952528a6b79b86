"""Where a plan runs: the local engine's job runner here, Ray beside it. The only folder that may import ray."""
