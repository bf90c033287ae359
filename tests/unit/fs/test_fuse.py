"""The FUSE protocol without a kernel: whatever bytes come in, what goes out is an answer that a kernel takes."""

import errno
import hashlib
import os
import pathlib
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sysvisor_fs.fuse import lists
from sysvisor_fs.fuse import protocol as p
from sysvisor_fs.fuse import session as sessions
from sysvisor_fs.fuse.handles import Handles
from sysvisor_fs.fuse.journal import Journal
from sysvisor_fs.fuse.names import Names, node_id
from sysvisor_fs.fuse.session import Session, Slow
from sysvisor_fs.identifier import uuid_from
from sysvisor_fs.node import Branch, Caller, Container, Directory, File, Node

OPCODES = sorted({*p.OPCODE_NAMES, *range(60), 4096, 0xFFFFFFFF})


class Note(File):
    """A value that can be written."""

    mode = 0o644

    def read(self, container: Container, caller: Caller) -> bytes:
        return container.values.get("note", b"0123456789" * 100)

    def write(self, container: Container, caller: Caller, data: bytes) -> None:
        container.values["note"] = data


class Patient(Note):
    """One that may wait."""

    fast = False


@pytest.fixture
def session(tmp_path: pathlib.Path) -> Session:
    """A session over a small tree."""
    return make_session(tmp_path, Branch({"note": Note(), "slow": Patient(), "dir": Branch({"note": Note()})}))


def make_session(directory: pathlib.Path, tree: Directory) -> Session:
    return Session(Container("c"), 7, Names(str(directory / "names"), tree), Handles())


def request(opcode: int, body: bytes = b"", nodeid: int = p.ROOT_ID, unique: int = 2) -> bytes:
    """A request's bytes."""
    return p.IN_HEADER.pack(40 + len(body), opcode, unique, nodeid, 0, 0, 0, 0, 0) + body


def answer(session: Session, data: bytes, fast: bool = True) -> tuple[int, bytes]:
    """Error number and payload of the answer."""
    reply = session.answer(p.parse(memoryview(data)), fast)
    assert reply is not None
    length, error, unique = p.OUT_HEADER.unpack_from(reply)
    assert (length, unique) == (len(reply), 2)
    return -error, reply[16:]


def lookup(session: Session, name: str, parent: int = p.ROOT_ID) -> int:
    """The id of a name."""
    error, payload = answer(session, request(p.LOOKUP, name.encode() + b"\0", parent), fast=False)
    assert error == 0
    return int(p.ENTRY_OUT.unpack_from(payload)[0])


def read(session: Session, node: int, handle: int, offset: int, size: int) -> bytes:
    """READ."""
    error, payload = answer(session, request(p.READ, p.READ_IN.pack(handle, offset, size, 0, 0, 0, 0), node))
    assert error == 0
    return payload


@given(data=st.binary(max_size=200))
def test_any_bytes_are_a_request_or_malformed(data: bytes) -> None:
    """The parser raises nothing else, and reads nothing beyond what the length allows."""
    try:
        found = p.parse(memoryview(data))
    except p.Malformed:
        return
    assert len(found.body) + 40 <= len(data)


@settings(deadline=None, max_examples=300)
@given(opcode=st.sampled_from(OPCODES), body=st.binary(max_size=120), known=st.booleans(), extension=st.integers(0, 2))
def test_any_arguments_get_a_sound_answer(
    tmp_path_factory: pytest.TempPathFactory, opcode: int, body: bytes, known: bool, extension: int
) -> None:
    """No request, however broken, raises: it is answered with a payload or an errno that the kernel takes."""
    session = make_session(tmp_path_factory.mktemp("fuzz"), Branch({"note": Note()}))
    node = lookup(session, "note") if known else p.ROOT_ID
    body += bytes(8 * extension)
    data = p.IN_HEADER.pack(40 + len(body), opcode, 2, node, 0, 0, 0, extension, 0) + body
    reply = session.answer(p.parse(memoryview(data)), fast=True)
    if reply is None:
        assert opcode in (p.FORGET, p.BATCH_FORGET)
        return
    length, error, unique = p.OUT_HEADER.unpack_from(reply)
    assert (length, unique) == (len(reply), 2)
    assert -512 < error <= 0
    assert not error or length == 16
    session.close()
    session.names.close()
    session.handles.shut()


def test_layouts_have_the_kernels_sizes() -> None:
    """The sizes of include/uapi/linux/fuse.h."""
    sizes = {p.IN_HEADER: 40, p.OUT_HEADER: 16, p.INIT_OUT: 64, p.ATTR: 88, p.ENTRY_OUT: 40, p.ATTR_OUT: 16,
             p.OPEN_OUT: 16, p.READ_IN: 40, p.WRITE_OUT: 8, p.RELEASE_IN: 24, p.POLL_IN: 24, p.STATFS_OUT: 80,
             p.LSEEK_IN: 24, p.DIRENT: 24}  # fmt: skip
    assert {layout.size: size for layout, size in sizes.items() if layout.size != size} == {}


@pytest.mark.parametrize(("minor", "agreed"), [(31, 31), (45, 45), (99, p.VERSION_MINOR)])
def test_init_agrees_on_the_lower_version(session: Session, minor: int, agreed: int) -> None:
    """Flags are only those that both know, and a request timeout is never among them."""
    flags2 = p.HAS_RESEND >> 32 | 1 << 10
    body = (
        struct.pack("<IIII", 7, minor, 0, p.INIT_EXT | p.ASYNC_READ | 1 << 15) + struct.pack("<I", flags2) + bytes(44)
    )
    error, payload = answer(session, request(p.INIT, body))
    fields = p.INIT_OUT.unpack(payload)
    assert (error, fields[1], session.minor) == (0, agreed, agreed)
    assert session.flags == p.INIT_EXT | p.ASYNC_READ | p.HAS_RESEND
    assert fields[12] == 0


def test_old_kernel_is_refused(session: Session) -> None:
    """Before 7.31 (Linux 5.4) there is no service."""
    assert answer(session, request(p.INIT, struct.pack("<IIII", 7, 30, 0, 0)))[0] == errno.EPROTO


def test_slow_nodes_are_left_to_workers(session: Session) -> None:
    """On the FUSE thread nothing is asked of a node that may wait."""
    data = request(p.LOOKUP, b"slow\0")
    with pytest.raises(Slow):
        session.answer(p.parse(memoryview(data)), fast=True)
    assert answer(session, data, fast=False)[0] == 0


def test_snapshot_holds_until_the_reader_goes_back(session: Session) -> None:
    """A file that changes between two reads gives one content; from the beginning it gives the new one."""
    node = lookup(session, "note")
    handle = p.OPEN_OUT.unpack(answer(session, request(p.OPEN, bytes(8), node))[1])[0]
    assert read(session, node, handle, 0, 600) == b"0123456789" * 60
    session.container.values["note"] = b"new"
    assert read(session, node, handle, 600, 600) == b"0123456789" * 40
    assert read(session, node, handle, 1000, 600) == b""
    assert read(session, node, handle, 0, 600) == b"new"


def test_forgotten_names_go_and_known_ones_stay(tmp_path: pathlib.Path) -> None:
    """What every kernel has forgotten is dropped; a successor still knows the rest by the same ids."""
    tree = Branch({"dir": Branch({"note": Note()}), "note": Note()})
    session = make_session(tmp_path, tree)
    directory = lookup(session, "dir")
    deep, note = lookup(session, "note", directory), lookup(session, "note")
    session.answer(p.parse(memoryview(request(p.FORGET, p.FORGET_IN.pack(1), note))), fast=True)
    assert note not in session.names.table
    assert answer(session, request(p.GETATTR, bytes(16), note))[0] == errno.ESTALE
    successor = make_session(tmp_path, tree)
    assert answer(successor, request(p.GETATTR, bytes(16), deep))[0] == 0
    assert deep == node_id("dir/note")


def test_names_beyond_the_limit_leave_nothing(session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container that knows as many names as it may is refused the next one, and the table does not grow."""
    monkeypatch.setattr(sessions, "NODES", 1)
    known, before = lookup(session, "note"), dict(session.names.table)
    assert answer(session, request(p.LOOKUP, b"dir\0"))[0] == errno.ENOMEM
    assert session.names.table == before
    assert lookup(session, "note") == known


def test_open_directory_pages_without_gaps(session: Session) -> None:
    """However small the buffer, every entry comes once."""
    seen, offset = [], 0
    while True:
        body = p.READ_IN.pack(0, offset, 40, 0, 0, 0, 0)
        error, payload = answer(session, request(p.READDIR, body))
        if error or not payload:
            break
        _, offset, length, _ = p.DIRENT.unpack_from(payload)
        seen.append(payload[24 : 24 + length].decode())
    assert seen == [".", "..", "note", "slow", "dir"]


class Endless(Branch):
    """A directory that counts how often it is listed, which may wait."""

    slow_names = True
    listed = 0

    def names(self, container: Container, caller: Caller) -> list[tuple[str, int]]:
        self.listed += 1
        return super().names(container, caller)


def test_lists_of_directories_are_made_by_workers(tmp_path: pathlib.Path) -> None:
    """Where a container decides how long they are, the FUSE thread does not make them."""
    session = make_session(tmp_path, Endless({"note": Note()}))
    data = request(p.READDIR, p.READ_IN.pack(1, 0, 4096, 0, 0, 0, 0))
    with pytest.raises(Slow):
        session.answer(p.parse(memoryview(data)), fast=True)
    assert answer(session, data, fast=False)[0] == 0
    assert session.answer(p.parse(memoryview(request(p.READDIR, p.READ_IN.pack(1, 3, 4096, 0, 0, 0, 0)))), fast=True)


def test_lists_of_open_directories_are_bounded(tmp_path: pathlib.Path) -> None:
    """However many directories are open, few lists are kept; one that went is made anew for its reader."""
    tree = Endless({"note": Note()})
    session = make_session(tmp_path, tree)
    for handle in range(1, 5000):
        answer(session, request(p.READDIR, p.READ_IN.pack(handle, 0, 40, 0, 0, 0, 0)), fast=False)
    assert len(session._lists._kept) == lists.LISTS
    assert session._lists._size == lists.LISTS * 3
    tree.listed = 0
    error, payload = answer(session, request(p.READDIR, p.READ_IN.pack(1, 2, 4096, 0, 0, 0, 0)), fast=False)
    assert (error, tree.listed, b"note" in payload) == (0, 1, True)


def test_long_lists_are_fewer() -> None:
    """Names are counted too, and the newest list stays whatever its length."""
    kept = lists.Lists()
    for handle in range(10):
        kept.keep(handle, [("x", 8)] * (lists.NAMES // 4))
    assert [handle for handle in range(10) if kept.get(handle)] == [6, 7, 8, 9]
    kept.keep(10, [("x", 8)] * (lists.NAMES + 1))
    assert [handle for handle in range(11) if kept.get(handle)] == [10]
    kept.drop(10)
    assert kept._size == 0


class Watched(Note):
    """A file that can be polled."""

    pollable = True

    def trigger(self, container: Container, caller: Caller, data: bytes) -> int:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)


def test_triggers_are_bounded(tmp_path: pathlib.Path) -> None:
    """A container has its share of descriptors, and one that could not be watched costs none."""
    session = make_session(tmp_path, Branch({"note": Watched()}))
    node = lookup(session, "note")

    def set_trigger() -> int:
        handle = p.OPEN_OUT.unpack(answer(session, request(p.OPEN, bytes(8), node))[1])[0]
        return answer(session, request(p.WRITE, p.READ_IN.pack(handle, 0, 1, 0, 0, 0, 0) + b"x", node))[0]

    def refuse(_session: Session, _trigger: sessions.Trigger) -> None:
        raise OSError(errno.ENOSPC, "full")

    session.on_trigger, accept = refuse, session.on_trigger
    before = len(os.listdir("/proc/self/fd"))
    assert set_trigger() == errno.ENOSPC
    assert (session.triggers, len(os.listdir("/proc/self/fd"))) == ({}, before)
    session.on_trigger = accept
    assert [set_trigger() for _ in range(sessions.TRIGGERS + 1)] == [0] * sessions.TRIGGERS + [errno.ENOSPC]
    assert answer(session, request(p.WRITE, p.READ_IN.pack(0, 0, 1, 0, 0, 0, 0) + b"x", node))[0] == errno.ENOSPC
    session.close()


def test_journal_is_found_by_a_successor() -> None:
    """A request that was read and not answered, its connection, and that it was carried out."""
    journal = Journal()
    slot = journal.free.pop()
    journal.claim(slot, 7)
    data = request(p.WRITE, unique=4)
    journal.buffers[slot][: len(data)] = data
    journal.carried_out(slot)
    journal.busy(7, 4)
    successor = Journal(os.dup(journal.fd))
    assert successor.outstanding() == [slot]
    assert successor.owner(slot) == (7, True)
    assert successor.suspect == (7, 4)
    assert slot not in successor.free
    successor.release(slot)
    assert Journal(os.dup(journal.fd)).outstanding() == []


def test_handles_are_bounded_and_never_confused() -> None:
    """A connection has its share, a handle that is closed is no other's, and another connection cannot use it."""
    handles = Handles()
    first = handles.open(7, 1)
    assert handles.get(8, first) is None
    handles.close(8, first)
    handles.close(7, first)
    second = handles.open(7, 1)
    assert second != first
    assert handles.get(7, first) is None
    assert {handles.open(9, 1) == 0 for _ in range(4096)} == {False}
    assert handles.open(9, 1) == 0
    assert Handles(os.dup(handles.fd)).get(7, second) is not None
    handles.forget(9)
    assert handles.open(9, 1) != 0


def test_a_name_is_one_name() -> None:
    """No slash, no dots, no missing NUL."""
    for raw in (b"", b"\0", b"a", b"a/b\0", b"..\0", b".\0"):
        with pytest.raises(OSError, match="no name"):
            p.name_of(memoryview(raw))
    assert p.name_of(memoryview(b"\xff\0")) == "\udcff"


def test_uuid_is_what_the_library_makes() -> None:
    """A version 4 UUID of the seed's digest."""
    digest = hashlib.blake2b(b"seed", digest_size=16).digest()
    assert uuid_from(b"seed") == str(uuid.UUID(bytes=digest, version=4))


def test_nothing_is_a_node_by_default() -> None:
    """A node that says nothing of itself is refused rather than served."""
    with pytest.raises(NotImplementedError):
        Node().attributes(Container("c"), Caller(0, 0, 0))
