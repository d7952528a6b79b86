"""From a drawn Albumentations transform to DALI operators: the table, the graph and the declared tolerances."""
