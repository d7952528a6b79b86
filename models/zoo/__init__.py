"""Classifiers by name: architectures, weights, heads, freezing and input transforms."""
