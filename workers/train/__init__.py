"""Training on Ray Train: ranks that share every batch, restarted from the step of the last checkpoint when one dies."""
