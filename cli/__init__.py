"""Command line: one module per command or group of commands, without logic of its own."""
