"""A training run from its start to its result."""
