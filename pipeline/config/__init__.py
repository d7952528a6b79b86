"""Configuration that users write: YAML read safely, checked models, imports by name."""
