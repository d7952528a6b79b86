"""Records of a run: step times, statistics, time limits, unreadable samples."""
