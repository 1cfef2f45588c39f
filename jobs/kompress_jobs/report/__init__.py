"""What a job came to, for people: figures out of the stages' manifests, as one HTML page and one model card."""
