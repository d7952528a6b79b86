"""Lightwell: Albumentations is the language, DALI the machine, Ray the floor it scales on, Grad-CAM the auditor."""

from __future__ import annotations
