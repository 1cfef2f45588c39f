"""One byte string for one value: the JSON that digests and stage keys are taken of."""

import hashlib
import json


def canonical_json(value: object) -> bytes:
    """Sorted keys, no spaces, UTF-8, finite numbers only; a float that is a whole number reads as an integer, so that
    `1` and `1.0` in a manifest are one (after RFC 8785)."""
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def digest(value: object) -> str:
    """`sha256:` and 64 hex digits of the canonical JSON."""
    return f"sha256:{hashlib.sha256(canonical_json(value)).hexdigest()}"


def _plain(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
