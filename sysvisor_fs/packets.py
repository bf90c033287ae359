"""JSON objects with descriptors over a SOCK_SEQPACKET socket: what holder and control socket speak."""

from __future__ import annotations

import array
import os
import socket
import struct

from sysvisor_runc.jsonlight import dumps, loads

SIZE = 1 << 17
MOST_DESCRIPTORS = 250  # of one packet: SCM_MAX_FD is 253

Message = dict[str, object]


class Incomplete(ValueError):
    """A packet that has come without all that was sent: too long, or we can have no more descriptors."""


def send(sock: socket.socket, message: Message, descriptors: list[int] | None = None) -> None:
    """One packet. The descriptors stay the sender's."""
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    sock.sendmsg([dumps(message).encode()], ancillary)


def receive(sock: socket.socket) -> tuple[Message, list[int]]:
    """One packet and its descriptors, which are the receiver's to close.

    Raises:
        EOFError: the other side is gone.
        Incomplete: it has lost something.
        ValueError: it is no JSON object.
    """
    space = socket.CMSG_SPACE(MOST_DESCRIPTORS * 4)
    data, ancillary, flags, _ = sock.recvmsg(SIZE, space, socket.MSG_CMSG_CLOEXEC)
    descriptors = array.array("i")
    for level, kind, content in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(content[: len(content) - len(content) % 4])
    try:
        if not data:
            raise EOFError("the other side has hung up")
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            raise Incomplete("no more descriptors" if flags & socket.MSG_CTRUNC else "packet too long")
        message = loads(data)
        if not isinstance(message, dict):
            raise ValueError("not an object")
    except (EOFError, ValueError):
        for fd in descriptors:
            os.close(fd)
        raise
    return message, list(descriptors)


def peer(sock: socket.socket) -> tuple[int, int]:
    """Pid and uid of the other side (SO_PEERCRED)."""
    pid, uid, _ = struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return pid, uid
