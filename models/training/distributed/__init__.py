"""Data-parallel training: ranks that share every batch."""
