"""Batches: samples collated into buffers, normalised, mixed, with their annotations."""
