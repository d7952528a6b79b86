"""What people ask about a plan or a machine: explain, costs, doctor."""
