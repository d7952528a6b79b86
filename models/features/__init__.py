"""Features of frozen networks: computed once, cached, written as Parquet, probed."""
