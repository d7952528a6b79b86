"""The command line: one module for each group of commands. It joins the parts and holds no logic."""
