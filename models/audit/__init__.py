"""Grad-CAM audits: maps, records, findings and the report."""
