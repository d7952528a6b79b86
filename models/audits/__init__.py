"""Audits of models."""
