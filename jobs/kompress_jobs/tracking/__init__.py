"""What a stage tells MLflow, from the event that a worker writes down to the run that a person looks at."""
