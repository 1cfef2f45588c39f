"""s3://bucket/prefix: a bundle that a kompress stage committed into a bucket."""

from kompress_jobs.model_place import fetch

__all__ = ["fetch"]
