"""Numbers of small class activation maps: where the evidence lies, exactly as on the upsampled map."""
