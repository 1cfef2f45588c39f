"""What all granularities and importances of pruning share, and what is built on them: budgets, search, sensitivity."""
