"""One stream of batches for many jobs: a named service on a cluster, and the engine that takes its batches."""
