"""``lightwell init``: generate plan, training job and audit job for a data set."""
