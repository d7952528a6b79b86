"""Plans, indexing and batch jobs on a Ray cluster."""
