"""The local engine: threads that make the batches of a view."""
