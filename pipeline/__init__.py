"""The data pipeline: load, preprocess, augment, cache, batch. Imports neither models nor Ray."""
