"""Grad-CAM audit: records, findings and report."""
