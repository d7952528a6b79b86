"""From bytes to RGB pixels: DALI first, then OpenCV, then Pillow."""
