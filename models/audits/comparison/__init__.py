"""Comparison of two audits: two models on the same images, or two versions of a dataset."""
