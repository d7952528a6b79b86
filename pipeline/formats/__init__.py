"""Image files: headers, integrity checks and the limits of untrusted files."""
