"""The index of a dataset: built from sources, headers and splits."""
