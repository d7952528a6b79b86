"""Checks of a dataset: pure functions of a `DatasetTable` that return findings or rows of the fix list."""
