"""How the worth of a group is estimated. The importance's name is the module, with `NEEDS_GRADIENTS` and `build() -> Callable`."""
