"""Changed images: regions filled, inpainted or pasted, and what removing evidence step by step does to a score."""
