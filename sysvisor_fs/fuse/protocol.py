"""The FUSE kernel protocol as bytes (include/uapi/linux/fuse.h, 7.31 to 7.45): parse a request, pack a reply.

Pure: no descriptor is read or written here. Everything is little-endian as the machine is, natural alignment, and the
structs have no holes, so each layout below is the list of its fields.
"""

from __future__ import annotations

import errno
import struct
from typing import TYPE_CHECKING, NamedTuple

from sysvisor_fs.node import Caller

if TYPE_CHECKING:
    from sysvisor_fs.node import Attributes

LOOKUP, FORGET, GETATTR, SETATTR, READLINK = 1, 2, 3, 4, 5
SYMLINK, MKNOD, MKDIR, UNLINK, RMDIR, RENAME, LINK, RENAME2 = 6, 8, 9, 10, 11, 12, 13, 45
OPEN, READ, WRITE, STATFS, RELEASE, FSYNC = 14, 15, 16, 17, 18, 20
SETXATTR, GETXATTR, LISTXATTR, REMOVEXATTR = 21, 22, 23, 24
FLUSH, INIT, OPENDIR, READDIR, RELEASEDIR = 25, 26, 27, 28, 29
ACCESS, CREATE, INTERRUPT, DESTROY, POLL, BATCH_FORGET, LSEEK = 34, 35, 36, 38, 40, 42, 46

OPCODE_NAMES = {
    LOOKUP: "lookup", FORGET: "forget", GETATTR: "getattr", SETATTR: "setattr", READLINK: "readlink", OPEN: "open",
    READ: "read", WRITE: "write", STATFS: "statfs", RELEASE: "release", FLUSH: "flush", INIT: "init",
    OPENDIR: "opendir", READDIR: "readdir", RELEASEDIR: "releasedir", ACCESS: "access", INTERRUPT: "interrupt",
    POLL: "poll", BATCH_FORGET: "batch_forget", LSEEK: "lseek", GETXATTR: "getxattr", LISTXATTR: "listxattr",
}  # fmt: skip

# Notifications go out as a reply with `unique` 0 and the code where the error is.
NOTIFY_POLL, NOTIFY_RESEND = 1, 7
UNIQUE_RESEND = 1 << 63  # set by the kernel in a request that it sends again (Linux 6.9); the reply repeats it

VERSION_MAJOR = 7
VERSION_MINOR = 45  # the newest that we know; the kernel takes the lower of both
MINOR_FLOOR = 31  # Linux 5.4

# Flags of INIT. Asked for where the kernel offers them.
ASYNC_READ, ATOMIC_O_TRUNC, BIG_WRITES, PARALLEL_DIROPS = 1 << 0, 1 << 3, 1 << 5, 1 << 18
NO_OPENDIR_SUPPORT, INIT_EXT, HAS_RESEND = 1 << 24, 1 << 30, 1 << 39
WANTED = ASYNC_READ | ATOMIC_O_TRUNC | BIG_WRITES | PARALLEL_DIROPS | INIT_EXT | HAS_RESEND

FOPEN_DIRECT_IO, FOPEN_NONSEEKABLE = 1 << 0, 1 << 2
POLL_SCHEDULE_NOTIFY = 1 << 0
FATTR_SIZE, FATTR_FH, FATTR_LOCKOWNER = 1 << 3, 1 << 6, 1 << 9
MAX_WRITE = 4096
READ_BUFFER = 8192  # FUSE_MIN_READ_BUFFER: the kernel refuses to fill a smaller one
ROOT_ID = 1

IN_HEADER = struct.Struct("<IIQQIIIHH")  # len opcode unique nodeid uid gid pid total_extlen padding
OUT_HEADER = struct.Struct("<IiQ")  # len error unique
INIT_IN = struct.Struct("<IIII")  # major minor max_readahead flags; since 7.36 flags2 and 11 unused words
# major minor max_readahead flags max_background congestion_threshold max_write time_gran max_pages map_alignment
# flags2 max_stack_depth request_timeout, 11 unused u16. A request_timeout is never asked for: it aborts for ever.
INIT_OUT = struct.Struct("<IIIIHHIIHHIIH22x")
# ino size blocks atime mtime ctime, three nsec, mode nlink uid gid rdev blksize flags
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
ENTRY_OUT = struct.Struct("<QQQQII")  # nodeid generation entry_valid attr_valid entry_valid_nsec attr_valid_nsec; attr
ATTR_OUT = struct.Struct("<QII")  # attr_valid attr_valid_nsec dummy; attr
SETATTR_IN = struct.Struct("<IIQQQ")  # valid padding fh size lock_owner; times, mode, ids
OPEN_IN = struct.Struct("<II")  # flags open_flags
OPEN_OUT = struct.Struct("<QIi")  # fh open_flags backing_id
READ_IN = struct.Struct("<QQIIQII")  # fh offset size read_flags lock_owner flags padding; WRITE and READDIR the same
WRITE_OUT = struct.Struct("<II")  # size padding
RELEASE_IN = struct.Struct("<QIIQ")  # fh flags release_flags lock_owner
FORGET_IN = struct.Struct("<Q")  # nlookup
BATCH_FORGET_IN = struct.Struct("<II")  # count dummy; then count times FORGET_ONE
FORGET_ONE = struct.Struct("<QQ")  # nodeid nlookup
INTERRUPT_IN = struct.Struct("<Q")  # unique
POLL_IN = struct.Struct("<QQII")  # fh kh flags events
POLL_OUT = struct.Struct("<II")  # revents padding
NOTIFY_POLL_OUT = struct.Struct("<Q")  # kh
LSEEK_IN = struct.Struct("<QQII")  # fh offset whence padding
LSEEK_OUT = struct.Struct("<Q")  # offset
STATFS_OUT = struct.Struct("<QQQQQIIII24x")  # blocks bfree bavail files ffree bsize namelen frsize padding spare[6]
DIRENT = struct.Struct("<QQII")  # ino off namelen type; the name, padded to 8

FILE_SIZE = 4096  # what a file without a size says, so that sendfile(2) and readers that trust st_size see all


class Request(NamedTuple):
    """A request: its header's fields and the rest as it came."""

    opcode: int
    unique: int
    nodeid: int
    caller: Caller
    body: memoryview


class Malformed(Exception):
    """The bytes are no request: shorter than a header, or not as long as they say."""


def parse(data: memoryview) -> Request:
    """The request in `data`, which may be longer.

    Raises:
        Malformed: there is none.
    """
    if len(data) < IN_HEADER.size:
        raise Malformed(f"{len(data)} bytes are no header")
    length, opcode, unique, nodeid, uid, gid, pid, extension, _ = IN_HEADER.unpack_from(data)
    end = length - extension * 8  # extensions stand behind the arguments; we ask for none
    if not IN_HEADER.size <= end <= length <= len(data):
        raise Malformed(f"length {length} with {extension * 8} of extensions in {len(data)} bytes")
    return Request(opcode, unique, nodeid, Caller(uid, gid, pid), data[IN_HEADER.size : end])


def unpack(layout: struct.Struct, body: memoryview) -> tuple[int, ...]:
    """The arguments at the beginning of a body.

    Raises:
        OSError: EINVAL, the body is too short.
    """
    if len(body) < layout.size:
        raise OSError(errno.EINVAL, "short request")
    return layout.unpack_from(body)


def name_of(body: memoryview) -> str:
    """The file name in a body, up to its NUL.

    Raises:
        OSError: EINVAL: no NUL, empty, a slash, or dots that only a path has.
    """
    raw, nul, _ = bytes(body).partition(b"\0")
    if not nul or not raw or b"/" in raw or raw in (b".", b".."):
        raise OSError(errno.EINVAL, "no name")
    if len(raw) > 255:  # NAME_MAX; the kernel itself allows 1024 here
        raise OSError(errno.ENAMETOOLONG, "name too long")
    return raw.decode("utf-8", "surrogateescape")


def reply(unique: int, payload: bytes = b"") -> bytes:
    """A successful answer."""
    return OUT_HEADER.pack(16 + len(payload), 0, unique) + payload


def failure(unique: int, number: int) -> bytes:
    """An answer that is an errno. The kernel takes 1 to 511 for one."""
    return OUT_HEADER.pack(16, -(number if 0 < number < 512 else errno.EIO), unique)


def notification(code: int, payload: bytes = b"") -> bytes:
    """A message that answers nothing."""
    return OUT_HEADER.pack(16 + len(payload), code, 0) + payload


def attr(nodeid: int, value: Attributes) -> bytes:
    """struct fuse_attr. Times are 0: nothing here has one."""
    size = max(value.size, FILE_SIZE) if value.mode & 0o170000 == 0o100000 else value.size
    return ATTR.pack(
        nodeid, size, 0, 0, 0, 0, 0, 0, 0, value.mode, value.nlink, value.uid, value.gid, 0, 4096, 0
    )  # fmt: skip


def attr_reply(nodeid: int, value: Attributes, valid: float) -> bytes:
    """The answer to GETATTR and SETATTR; `valid` seconds the kernel may believe it."""
    return ATTR_OUT.pack(int(valid), int(valid % 1 * 1e9), 0) + attr(nodeid, value)


def entry_reply(nodeid: int, value: Attributes, valid: float) -> bytes:
    """The answer to LOOKUP. The entry itself is looked up again each time: a name may be there for one caller only."""
    return ENTRY_OUT.pack(nodeid, 0, 0, int(valid), 0, int(valid % 1 * 1e9)) + attr(nodeid, value)


def init_reply(body: memoryview) -> tuple[bytes, int, int]:
    """The answer to INIT, the minor version in use, and the flags that hold: ours that the kernel offered.

    Raises:
        OSError: EPROTO, the kernel is too old or speaks another major version.
    """
    major, minor, readahead, low = unpack(INIT_IN, body)
    if major != VERSION_MAJOR or minor < MINOR_FLOOR:
        raise OSError(errno.EPROTO, f"FUSE {major}.{minor}")
    offered = low
    if low & INIT_EXT and len(body) >= 20:
        offered |= int.from_bytes(body[16:20], "little") << 32
    flags = offered & WANTED
    payload = INIT_OUT.pack(
        VERSION_MAJOR, min(minor, VERSION_MINOR), readahead, flags & 0xFFFFFFFF, 64, 48, MAX_WRITE, 1, 1, 0,
        flags >> 32, 0, 0,
    )  # fmt: skip
    return payload, min(minor, VERSION_MINOR), flags


def dirents(entries: list[tuple[str, int]], offset: int, size: int) -> bytes:
    """As many entries from number `offset` on as fit into `size` bytes; an entry's cookie is the next one's number."""
    out = bytearray()
    for number, (name, kind) in enumerate(entries[offset:], offset + 1):
        raw = name.encode("utf-8", "surrogateescape")
        padded = raw + bytes(-len(raw) % 8)
        if len(out) + DIRENT.size + len(padded) > size:
            break
        out += DIRENT.pack(0xFFFFFFFF, number, len(raw), kind) + padded
    return bytes(out)
