"""Who may come in: the owner of a TCP connection, told by the kernel, and of one that has gone."""

import asyncio
import os
import socket
import struct

import pytest

from sysvisor_fs import door
from sysvisor_runc import log


def _pair() -> tuple[socket.socket, socket.socket]:
    """Both ends of a connection over the loopback interface: the peer's, and what accept(2) gave."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        accepted, _ = listener.accept()
    return peer, accepted


def test_owner_of_a_connection() -> None:
    """A connected peer is its user's; one that has hung up is nobody's, whatever the kernel's remnant says."""
    peer, accepted = _pair()
    with accepted:
        with peer:
            assert door.peer_uid(accepted) == os.getuid()
            assert door.is_welcome(accepted)
        assert door.peer_uid(accepted) == -1
        assert not door.is_welcome(accepted)


def test_peer_that_was_reset_is_not_welcome() -> None:
    """A connection without a peer raises nothing at whoever took it."""
    peer, accepted = _pair()
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    peer.close()
    with accepted:
        assert not door.is_welcome(accepted)


@pytest.mark.parametrize(("state", "inode", "uid"), [(1, 77, 0), (6, 0, -1), (1, 0, -1), (8, 77, -1)])
def test_only_an_open_socket_has_an_owner(state: int, inode: int, uid: int) -> None:
    """TIME_WAIT and others without an inode read as uid 0, which is not root's."""
    answer = struct.pack("=IHHII", 88, 20, 0, 0, 0) + bytes([2, state]) + bytes(62) + struct.pack("=II", 0, inode)
    assert door.owner_told(answer) == uid
    assert door.owner_told(answer[:40]) == -1


def test_complaints_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred refusals are counted one by one, and said once."""
    said: list[str] = []
    monkeypatch.setattr(log, "warning", said.append)

    async def knock() -> int:
        entrance = door.Door([], lambda _: None)
        for _ in range(100):
            entrance._refuse()
        return entrance.refused

    assert asyncio.run(knock()) == 100
    assert said == ["connections refused: 1"]
