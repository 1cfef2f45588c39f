"""One file a stage kind; `stage.py` joins them into the `stages` of a CompressionJob."""
