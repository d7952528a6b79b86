"""From a plan to a program: where each step runs and why."""
