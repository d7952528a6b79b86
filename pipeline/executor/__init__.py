"""From the bytes of a sample to its finished pixels: sampled parameters, decoding, transforms, replacement."""
