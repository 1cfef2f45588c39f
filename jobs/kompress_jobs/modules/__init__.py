"""What is done to an nn.Module, whatever the stage: its structure, its graph, its norms, its arithmetic."""
