"""Output folders: which files a run owns there, and one run at a time."""
