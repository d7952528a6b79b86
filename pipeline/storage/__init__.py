"""File access, local and remote: range reads, retries, allowed protocols."""
