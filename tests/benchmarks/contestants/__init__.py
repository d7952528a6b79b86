"""The contestants, a module for each family: functions from ``Work`` to an endless stream of batches."""
