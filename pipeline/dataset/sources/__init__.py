"""Where samples come from: class folders, flat folders and tables."""
