"""Class activation maps: Grad-CAM, target layers, token layout, measures of maps."""
