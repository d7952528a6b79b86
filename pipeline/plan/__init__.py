"""Plans: the plan and its sections, and views."""
