"""s3://bucket/prefix: a bundle that a kompress stage committed into a bucket, or a safetensors file."""

from kompress_jobs.storage.model_place import fetch, fetch_weights

__all__ = ["fetch", "fetch_weights"]
