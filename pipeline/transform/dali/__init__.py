"""Albumentations transforms as DALI operators: the table, the graph and the declared tolerances."""
