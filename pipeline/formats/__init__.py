"""Image file formats: header parsing, integrity checks and limits for untrusted files."""
