"""What a plan does to single images of a dataset."""
