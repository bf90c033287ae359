"""The holder under want of descriptors: it complains, and goes on."""

import array
import os
import resource
import socket

import pytest

from sysvisor_fs import packets
from sysvisor_fs.holder import Holder


def test_lost_descriptors_are_told_and_the_connection_stays(tmp_path: object) -> None:
    """A daemon calls once in its life: hanging up on it would be the end of both."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    listener.bind(f"{tmp_path}/holder.sock")
    listener.listen(1)
    daemon = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    with listener, daemon:
        daemon.connect(f"{tmp_path}/holder.sock")
        holder = Holder(listener)
        holder._turn()
        packets.send(daemon, {"op": "put", "name": "one"}, [0, 0, 0, 0])
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (_next(), hard))
            holder._turn()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert packets.receive(daemon)[0] == {"ok": False, "error": "no more descriptors"}
        packets.send(daemon, {"op": "put", "name": "one"}, [0])
        holder._turn()
        assert packets.receive(daemon)[0] == {"ok": True}
        packets.send(daemon, {"op": "drop", "name": "one"})
        holder._turn()
        for client in holder._clients.values():
            client.close()


def _next() -> int:
    """A limit that leaves room for one descriptor."""
    fd = os.dup(0)
    os.close(fd)
    return fd + 1


def test_an_incomplete_packet_leaves_nothing() -> None:
    """More descriptors than there is room for: those that came are closed."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        before = len(os.listdir("/proc/self/fd"))
        ours.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 253))])
        with pytest.raises(packets.Incomplete):
            packets.receive(theirs)
        assert len(os.listdir("/proc/self/fd")) == before
