"""One loop for every stage that trains, and what it needs."""
