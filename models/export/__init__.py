"""Trained models for use without Lightwell."""
