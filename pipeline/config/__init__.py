"""User configuration: safe YAML parsing, checked models, imports by name."""
