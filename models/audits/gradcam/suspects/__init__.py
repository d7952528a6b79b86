"""Candidate findings, from the records of the maps alone."""
