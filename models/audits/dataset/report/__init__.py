"""Report of a dataset audit."""
