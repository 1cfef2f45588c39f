"""Finished models that answer once more: in their engine, and for `spec.evaluation` on more data and after more seeds."""
