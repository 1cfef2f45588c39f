"""The life of a pod: its environment, torchrun's agent, the workers, and the last word."""
