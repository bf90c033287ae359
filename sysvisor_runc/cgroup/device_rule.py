"""One rule about devices: what it allows or denies, for both versions of cgroups."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Key = tuple[str, int, int]  # type b or c, major and minor with ANY as wildcard

ANY = -1

# BPF_DEVCG_ACC_* of include/uapi/linux/bpf.h
MKNOD, READ, WRITE = 1, 2, 4
LETTERS = (("r", READ), ("w", WRITE), ("m", MKNOD))
ALL = MKNOD | READ | WRITE


class Rule:
    """One rule: `allow` or deny the accesses in `mask` (MKNOD, READ, WRITE) to devices of `type` (`b`, `c`)."""

    __slots__ = ("allow", "major", "mask", "minor", "type")

    def __init__(self, allow: bool, type_: str, major: int, minor: int, mask: int) -> None:
        self.allow = allow
        self.type = type_
        self.major = major
        self.minor = minor
        self.mask = mask

    def describe(self) -> str:
        return f"{'allow' if self.allow else 'deny'} {text((self.type, self.major, self.minor), self.mask)}"


def text(key: Key, mask: int) -> str:
    """A rule as v1's lists have it: `c 1:3 rwm`."""
    type_, major, minor = key
    numbers = f"{'*' if major == ANY else major}:{'*' if minor == ANY else minor}"
    return f"{type_} {numbers} {''.join(letter for letter, bit in LETTERS if mask & bit)}"
