"""Ranks that share every batch and learn what one process would learn of the whole."""
