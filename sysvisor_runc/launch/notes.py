"""What a launch is about to take, noted in the state directory until the record is there.

A launch that is killed by SIGKILL cannot undo anything: `leftovers` reads this then. Each note is one line, written by
one write(2), so that it is there whole or not at all.
"""

from __future__ import annotations

import os

from sysvisor_runc.errors import StateError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.store import Entry

NAME = "launching"


def note(entry: Entry, kind: str, *words: str) -> None:
    """Append notes of one kind: `cgroup` (key and path), `delegated`, `init` (pid and start time), `overlay` (its work
    directory), `rdt` (path), `unit` or `user-unit` (name), `fs` (gRPC address).

    Raises:
        StateError: the state directory cannot be written to.
    """
    text = "".join(f"{kind} {word}\n" for word in words)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        fd = os.open(NAME, flags, 0o600, dir_fd=entry.dirfd)
        try:
            os.write(fd, os.fsencode(text))
        finally:
            os.close(fd)
    except OSError as error:
        hint = "free some space, or give another --root" if error.errno == 28 else None  # ENOSPC
        raise StateError(f"cannot write to the state directory {entry.path!r}: {reason(error)}", hint=hint) from error


def forget(entry: Entry) -> None:
    """The record tells it all from now on."""
    os.unlink(NAME, dir_fd=entry.dirfd)


def read(entry: Entry) -> list[tuple[str, str]]:
    """The notes as (kind, word); none where no launch got that far."""
    try:
        fd = os.open(NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.dirfd)
    except FileNotFoundError:
        return []
    with open(fd, "rb") as file:
        lines = os.fsdecode(file.read()).split("\n")
    pairs = [line.partition(" ") for line in lines[:-1]]
    return [(kind, word) for kind, _, word in pairs]
