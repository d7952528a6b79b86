"""Where samples come from: class folders, flat folders, tables and tar shards, on disk or behind a URI."""
