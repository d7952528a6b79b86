"""What is recorded about a run: step times, statistics, time limits, unreadable samples."""
