"""Class activation maps: Grad-CAM, target layers, activation layouts and map statistics."""
