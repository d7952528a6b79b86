"""Shortcuts planted on purpose, and which of them an audit finds."""
