"""Class activation maps: one recorder of activations and gradients, and a file for each method."""
