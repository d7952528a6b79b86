"""Training options: which parameters learn, at which rate, and averages of weights."""
