"""file:///path: a bundle that a kompress stage committed into a folder."""

from kompress_jobs.model_place import fetch

__all__ = ["fetch"]
