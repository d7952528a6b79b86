"""Tests of maps themselves: whether they depend on the weights, and on the place of what is in the image."""
