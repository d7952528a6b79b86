"""Writes the images of a plan to shards: WebDataset tar or Parquet."""
