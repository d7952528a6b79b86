"""Classifiers by name: architectures, weights, heads, layer freezing and expected input."""
