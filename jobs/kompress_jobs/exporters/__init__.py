"""File formats. The format's name is the module, with `lower` and `open_engine`."""
