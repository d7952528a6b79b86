"""Metrics of a split with intervals, for each task."""
