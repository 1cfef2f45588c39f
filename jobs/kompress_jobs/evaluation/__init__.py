"""`spec.evaluation`: finished models that answer once more, on more data and after more seeds."""
