"""The Grad-CAM audit: maps, records, findings and the report."""
