"""Policies: Albumentations transforms as checked values."""
