"""What audits find: the schema of a finding, and the statistics behind it."""
