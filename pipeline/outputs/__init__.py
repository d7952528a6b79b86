"""Output folders: ownership of files by a manifest, and a lock against concurrent runs."""
