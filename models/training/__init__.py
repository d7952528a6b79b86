"""Transfer learning: training loop, metrics and checkpoints."""
