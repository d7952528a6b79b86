"""Files on a local disk or behind a URI: reads, range requests, retries, allowed protocols."""
