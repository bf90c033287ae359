"""inotify(7), as far as it tells of files that the kernel itself changes. Wrappers only, no policy."""

from __future__ import annotations

from sysvisor_runc.kernel.syscall import MACHINE, NUMBERS, c_path, syscall

# Not in the common table, which every command loads.
NUMBERS.update(
    {
        "x86_64": {"inotify_init1": 294, "inotify_add_watch": 254, "inotify_rm_watch": 255},
        "aarch64": {"inotify_init1": 26, "inotify_add_watch": 27, "inotify_rm_watch": 28},
    }.get(MACHINE, {})
)

IN_MODIFY = 0x2
IN_Q_OVERFLOW = 0x4000
IN_IGNORED = 0x8000
_IN_CLOEXEC = 0o2000000
_IN_NONBLOCK = 0o4000
_HEADER = 16  # struct inotify_event: wd, mask, cookie, len, and a name of len bytes


def inotify_init1() -> int:
    """A new instance, close-on-exec and non-blocking. Raises OSError: EMFILE, for a user has few of them."""
    return syscall("inotify_init1", _IN_CLOEXEC | _IN_NONBLOCK)


def inotify_add_watch(fd: int, path: str, mask: int) -> int:
    """The watch descriptor of `path`, of which there is one per file and instance. Raises OSError."""
    return syscall("inotify_add_watch", fd, c_path(path), mask, operand=path)


def inotify_rm_watch(fd: int, wd: int) -> None:
    """Forget a watch. Raises OSError."""
    syscall("inotify_rm_watch", fd, wd)


def events(data: bytes) -> list[tuple[int, int]]:
    """(watch descriptor, mask) of each event that a read has given."""
    found = []
    offset = 0
    while offset + _HEADER <= len(data):
        wd, mask, _, length = (
            int.from_bytes(data[offset + i : offset + i + 4], "little", signed=not i) for i in (0, 4, 8, 12)
        )
        found.append((wd, mask))
        offset += _HEADER + length
    return found
