"""The rules: one file for each kind of transform, each with a tuple ``LOWERINGS``."""
