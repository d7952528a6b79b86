"""Reads the files of samples, checks them against the index and decodes them."""
