"""Seeds out of seeds."""

_MASK = (1 << 63) - 1


def mix(*numbers: int) -> int:
    """A seed out of several numbers (64-bit FNV-1a over them); close inputs give unlike seeds."""
    found = 0xCBF29CE484222325
    for number in numbers:
        for byte in number.to_bytes(8, "little"):
            found = ((found ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return found & _MASK
