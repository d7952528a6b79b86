"""Class masks of segmentation networks: predicted, brought back to the size of the picture, and counted."""
