"""Descriptors that go through a socket: those that the host opens only after the clone, and the terminal of a child
that its host may not look into.

Loaded by the host before the clone. May import nothing of ours.
"""

from __future__ import annotations

import _socket

_RIGHTS_MAX = 253  # SCM_MAX_FD
_TEXT_MAX = 4096


def pair() -> tuple[_socket.socket, int]:
    """The host's end, and the descriptor of the child's."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    return ours, theirs.detach()


def end(fd: int) -> _socket.socket:
    """The socket behind a descriptor, which is the socket's from now on."""
    return _socket.socket(fileno=fd)


def send(link: _socket.socket, join: list[int], leaf: int, trees: dict[int, int]) -> None:
    """Send what `main.Wiring` tells of. Fine if the child is gone: its channel says why.

    One message: how many files to join, whether there is a leaf, the numbers of the trees; and all the descriptors.
    """
    leaves = [] if leaf < 0 else [leaf]
    rights = b"".join(fd.to_bytes(4, "little") for fd in (*join, *leaves, *trees.values()))
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if rights else []
    text = " ".join(map(str, (len(join), len(leaves), *trees)))
    try:
        link.sendmsg([text.encode()], ancillary)
    except BrokenPipeError:
        pass
    link.close()


def receive(fd: int, trees: dict[int, int]) -> tuple[list[int], int]:
    """The files to join and the leaf's or -1; trees are added to `trees`. All close-on-exec (unix(7)).

    Raises:
        OSError: the host is gone, or we can have no more descriptors.
    """
    link = end(fd)
    text, ancillary, flags, _ = link.recvmsg(_TEXT_MAX, _socket.CMSG_SPACE(4 * _RIGHTS_MAX), _socket.MSG_CMSG_CLOEXEC)
    link.close()
    if not text:
        raise BrokenPipeError(32, "the command that launches the container is gone")
    if flags & _socket.MSG_CTRUNC:
        raise OSError(24, "too many open files")  # EMFILE
    opened = [int.from_bytes(data[at : at + 4], "little") for _, _, data in ancillary for at in range(0, len(data), 4)]
    joins, leaves, *numbers = map(int, text.split())
    trees.update(zip(numbers, opened[joins + leaves :], strict=True))
    return opened[:joins], opened[joins] if leaves else -1
