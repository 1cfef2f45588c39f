"""Data sets that every machine has: the name behind `builtin://` is the module, with `load(dataset) -> Data`. All are small."""
