"""What pruning removes. The granularity's name is the module, with `Pruner`, `check` and `replay`."""
