"""UUIDs made from something else. The packages uuid and hashlib would cost a successor's readers ten milliseconds."""

from __future__ import annotations

from _blake2 import blake2b


def uuid_from(seed: bytes) -> str:
    """The same random-looking UUID (RFC 9562, version 4) for the same seed."""
    raw = bytearray(blake2b(seed, digest_size=16).digest())
    raw[6] = raw[6] & 0x0F | 0x40
    raw[8] = raw[8] & 0x3F | 0x80
    text = raw.hex()
    return "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))
