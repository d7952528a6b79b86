"""The memory budget of a feed: estimates before files are read, a hard limit while they are."""
