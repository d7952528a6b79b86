"""Effects of a plan on single images of a dataset."""
