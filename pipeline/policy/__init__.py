"""Policies: Albumentations transforms as values, and what is drawn for a sample before there are pixels."""
