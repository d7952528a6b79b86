"""The plan and its sections: what happens to images, and which samples are read."""
