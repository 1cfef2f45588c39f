"""From a stage to processes: what its pods are told (`inputs`), the torchx app (`app`), the Kubernetes objects (`objects`, `merge`)."""
