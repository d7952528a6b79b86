"""Figures of results, and facts about the run that made them."""
