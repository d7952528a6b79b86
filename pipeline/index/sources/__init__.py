"""Readers for dataset sources: folders, tables, annotation formats and tar shards, local or remote."""
