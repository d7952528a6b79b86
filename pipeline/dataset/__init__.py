"""What a dataset holds: sources, headers, splits, and the index that is made of them."""
