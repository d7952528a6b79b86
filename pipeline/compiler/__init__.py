"""From a plan to a program: where each step runs, why, and what it costs."""
