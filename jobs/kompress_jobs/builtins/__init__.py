"""Data sets that every machine has or can make: the name behind `builtin://` is the module. All are small. Each has

- `load(dataset, first) -> Data`; with `first` about that many samples of each split are enough (preflight),
- `made_of(dataset) -> dict`, what the samples depend on besides our code: versions of libraries and programs.
"""
