"""Transforms: parameters sampled before decoding, output shapes, DALI operators."""
