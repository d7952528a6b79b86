"""Tests of maps themselves: dependence on the weights, and on places in the image."""
