"""Descriptors that the host opens only after the clone, and sends through a socket; for --systemd-cgroup.

Loaded by the host before the clone. May import nothing of ours.
"""

from __future__ import annotations

import _socket

_RIGHTS_MAX = 253  # SCM_MAX_FD
_LEAF, _NO_LEAF = b"L", b"J"


def pair() -> tuple[_socket.socket, int]:
    """The host's end, and the descriptor of the child's."""
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    return ours, theirs.detach()


def send(link: _socket.socket, join: list[int], leaf: int) -> None:
    """Send the files to be joined, and the leaf's unless that is -1. Fine if the child is gone: its channel tells."""
    opened = join if leaf < 0 else [*join, leaf]
    rights = b"".join(fd.to_bytes(4, "little") for fd in opened)
    ancillary = [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if opened else []
    try:
        link.sendmsg([_NO_LEAF if leaf < 0 else _LEAF], ancillary)
    except BrokenPipeError:
        pass
    link.close()


def receive(fd: int) -> tuple[list[int], int]:
    """What the host has sent, close-on-exec (unix(7)). Raises OSError: the host is gone."""
    link = _socket.socket(fileno=fd)
    word, ancillary, _, _ = link.recvmsg(1, _socket.CMSG_SPACE(4 * _RIGHTS_MAX), _socket.MSG_CMSG_CLOEXEC)
    link.close()
    if not word:
        raise BrokenPipeError(32, "the command that launches the container is gone")
    opened = [int.from_bytes(data[at : at + 4], "little") for _, _, data in ancillary for at in range(0, len(data), 4)]
    return (opened[:-1], opened[-1]) if word == _LEAF else (opened, -1)
