"""Job contracts, job files and the progress of long work."""
