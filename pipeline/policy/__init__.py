"""Policies: Albumentations transforms as validated values."""
