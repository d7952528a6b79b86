"""Transfer learning: the loop, its metrics and its checkpoints."""
