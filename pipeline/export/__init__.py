"""Writes what a plan yields to shards: WebDataset tar or Parquet."""
