"""Which file systems allow ID-mapped mounts."""

from __future__ import annotations

# statfs magic → name, and the first kernel with FS_ALLOW_IDMAP for it. Consulted where nobody tried the real thing.
_ALLOWED = {
    0xEF53: ("ext4", 5, 12),
    0x58465342: ("xfs", 5, 12),
    0x4D44: ("vfat", 5, 12),
    0x9123683E: ("btrfs", 5, 15),
    0x7366746E: ("ntfs3", 5, 15),
    0xF2F52010: ("f2fs", 5, 18),
    0xE0F5E1E2: ("erofs", 5, 19),
    0x73717368: ("squashfs", 6, 2),
    0x01021994: ("tmpfs", 6, 3),
    0x00C36400: ("ceph", 6, 7),
    0xCA451A4E: ("bcachefs", 6, 7),
}

_REFUSED = {0x794C7630: "overlayfs", 0x65735546: "fuse", 0x6A656A63: "fakeowner", 0x6969: "nfs", 0xFE534D42: "smb"}


def is_known(magic: int) -> bool:
    return magic in _ALLOWED or magic in _REFUSED


def why_not(magic: int, kernel: tuple[int, int], tried: bool | None) -> str | None:
    """None where an ID-mapped mount works as far as is known, else the reason, for a person."""
    if tried:
        return None
    name, *since = _ALLOWED.get(magic, (_REFUSED.get(magic, f"file system type {magic:#x}"),))
    if tried is False or not since:
        return f"{name} does not support ID-mapped mounts"
    if kernel < tuple(since):
        return f"{name} supports ID-mapped mounts from Linux {since[0]}.{since[1]} on"
    return None
