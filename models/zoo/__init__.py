"""Classifiers by name: architectures, weights, heads, layer freezing and expected input."""

from __future__ import annotations

from .build import ModelSpec, build_model

__all__ = ["ModelSpec", "build_model"]
