"""Which weights learn. The strategy's name is the module, with `prepare(model, settings, head) -> None`."""
