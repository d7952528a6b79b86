"""The local engine: threads that make batches of a plan, and the pixels that they make."""
