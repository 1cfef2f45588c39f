"""From an address or a folder to a model with its description, and back."""
