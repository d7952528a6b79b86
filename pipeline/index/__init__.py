"""Dataset index: sources, image headers and splits."""
