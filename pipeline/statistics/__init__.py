"""Measures of files and decoded images that need no model."""
