"""From a data set to the files of a first run: what ``lightwell init`` finds, decides and writes."""
