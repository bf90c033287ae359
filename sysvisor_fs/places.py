"""Put a fresh mount where a container has one whose connection was lost: in its own mount namespace, as its own root.

A process enters the container for that: one that has a single thread, imports nothing once it is inside, and has no
more rights there than the container's root. What was mounted below a lost mount cannot be reached any more, since the
kernel would have to ask the lost daemon for the way; what the runtime masks there is masked anew.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from sysvisor_fs.fuse.mount import FSTYPE
from sysvisor_runc.errors import SysvisorError, reason
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel import prctl
from sysvisor_runc.kernel.namespaces import CLONE_NEWNS, CLONE_NEWUSER, assert_single_threaded, setns
from sysvisor_runc.kernel.syscall import syscall

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

KIND = f"fuse.{FSTYPE}"
_MOST = 128  # descriptors in an answer of the daemon's
_PATIENCE = 10.0  # seconds
_BENEATH = 0x200  # MOVE_MOUNT_BENEATH, Linux 6.5
_NOFOLLOW = 8  # UMOUNT_NOFOLLOW
_ATTACH = m.MOVE_MOUNT_F_EMPTY_PATH | m.MOVE_MOUNT_T_EMPTY_PATH
_NO_PROGRAMS = m.MOUNT_ATTR_NOSUID | m.MOUNT_ATTR_NODEV | m.MOUNT_ATTR_NOEXEC


class Place:
    """A line of mountinfo (proc_pid_mountinfo(5)).

    Attributes:
        id, parent: of mounts.
        device: as `os.makedev` has it.
        root: the path within its file system.
        point: where it is mounted, as the container sees it.
        readonly, shared: what it is.
        kind: the file system's type.
    """

    __slots__ = ("device", "id", "kind", "parent", "point", "readonly", "root", "shared")

    def __init__(self, line: str) -> None:
        left, _, right = line.partition(" - ")
        fields = left.split(" ")
        self.id, self.parent = int(fields[0]), int(fields[1])
        major, _, minor = fields[2].partition(":")
        self.device = os.makedev(int(major), int(minor))
        self.root, self.point = _unescape(fields[3]), _unescape(fields[4])
        self.readonly = "ro" in fields[5].split(",")
        self.shared = any(field.startswith("shared:") for field in fields[6:])
        self.kind = right.split(" ", 1)[0]


def _unescape(field: str) -> str:
    for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(octal, char)
    return field


def read(pid: int) -> list[Place]:
    """The mounts of a process."""
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return [Place(line.rstrip("\n")) for line in file]


def served(places: list[Place]) -> list[str]:
    """The paths of what is ours, as far as it can be: a container may have file systems of the same name."""
    roots = {place.root for place in places if place.kind == KIND and place.root.startswith(("/proc/", "/sys/"))}
    return sorted(roots)[:_MOST]


def lost(places: list[Place], device: int) -> list[Place]:
    """Those of ours that are of another connection than `device`; the uppermost of each place, in order."""
    latest = {place.point: place for place in places}
    return [place for place in latest.values() if place.kind == KIND and place.device != device]


def below(places: list[Place], gone: list[Place]) -> list[Place]:
    """What is mounted below those, in order, and is not ours."""
    ids = {place.id for place in gone}
    found = []
    for place in places:
        if place.parent in ids and place not in gone:
            ids.add(place.id)
            found.append(place)
    return [place for place in found if place.kind != KIND]


def replace(pid: int, trees: dict[str, int], device: int, check: Callable[[], None]) -> tuple[int, list[str]]:
    """Put `trees`, detached mounts of `device` by their paths, over what process `pid` has lost of them.

    `check` raises where `pid` is another's by now. How many places that were, and those which could not be had again:
    what somebody else has mounted below.

    Raises:
        SysvisorError: the kernel refuses, or the container holds us up.
    """
    places = read(pid)
    gone = [place for place in lost(places, device) if place.root in trees]
    inner = below(places, gone)
    if not gone:
        return 0, []
    namespaces = [(flag, os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC))
                  for name, flag in (("user", CLONE_NEWUSER), ("mnt", CLONE_NEWNS))]  # fmt: skip
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    null = m.open_tree(m.AT_FDCWD, "/dev/null", m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC)
    check()

    def work() -> list[str]:
        _enter(namespaces, root)
        for number, place in enumerate(gone):
            tree = trees[place.root]
            if any(other.root == place.root for other in gone[:number]):
                tree = _clone(tree)  # it is attached by now, so it can be
            _put(tree, place)
        return [place.point for place in inner if not _again(place, null)]

    try:
        return len(gone), _in_a_child(work)
    finally:
        for fd in (root, null, *(fd for _, fd in namespaces)):
            os.close(fd)


def _in_a_child(work: Callable[[], list[str]]) -> list[str]:
    """What `work` returns, done by a fork of us."""
    assert_single_threaded()
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _be_child(work, writer)
    os.close(writer)
    said = b""
    # A container may have a file system of its own on the way, which does not answer.
    while select.select([reader], [], [], _PATIENCE)[0] and (part := os.read(reader, 1 << 16)):
        said += part
    os.close(reader)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    word, *rest = os.fsdecode(said).split("\0")
    if word != "done":
        raise SysvisorError(f"mount anew: {rest[0] if rest else 'the helper ended unexpectedly, or took too long'}")
    return rest


def _be_child(work: Callable[[], list[str]], writer: int) -> NoReturn:
    try:
        # Nothing is to be imported from a container's files.
        sys.path.clear()
        sys.meta_path.clear()
        sys.path_hooks.clear()
        prctl.prctl(prctl.PR_SET_DUMPABLE, 0)
        os.setgroups([])
        os.write(writer, os.fsencode("\0".join(["done", *work()])))
    except OSError as error:
        text = str(error) if hasattr(error, "call") else reason(error)
        os.write(writer, os.fsencode(f"failed\0{text}"))
    finally:
        os._exit(0)


def _enter(namespaces: list[tuple[int, int]], root: int) -> None:
    """Become the container's root."""
    for flag, fd in namespaces:
        setns(fd, flag, operand="a namespace of the container")
    os.fchdir(root)
    os.chroot(".")
    syscall("setresgid", 0, 0, 0, operand="0")
    syscall("setresuid", 0, 0, 0, operand="0")


def _put(tree: int, place: Place) -> None:
    """Beneath the lost mount, which is then taken away: nobody ever sees what lies under both. Else on top of it."""
    if place.readonly:
        m.mount_setattr(tree, "", m.AT_EMPTY_PATH, attr_set=m.MOUNT_ATTR_RDONLY, operand=place.point)
    at = os.open(place.point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            m.move_mount(tree, "", at, "", _ATTACH | _BENEATH, operand=place.point)
        except OSError:
            m.move_mount(tree, "", at, "", _ATTACH, operand=place.point)
        else:
            syscall("umount2", os.fsencode(place.point) + b"\0", m.MNT_DETACH | _NOFOLLOW, operand=place.point)
    finally:
        os.close(at)
    propagation = m.MS_SHARED if place.shared else m.MS_PRIVATE
    m.mount_setattr(tree, "", m.AT_EMPTY_PATH, propagation=propagation, operand=place.point)


def _again(place: Place, null: int) -> bool:
    """Whether what was mounted below is there again: what masks a path, and binfmt_misc."""
    try:
        if place.kind == "tmpfs" and place.readonly and place.root == "/":
            tree = _new("tmpfs", {"nr_inodes": "1", "mode": "755"}, m.MOUNT_ATTR_RDONLY)
        elif place.root.endswith("/null"):
            tree = _clone_or_itself(null)
        elif place.kind == "binfmt_misc":
            tree = _new("binfmt_misc", {}, _NO_PROGRAMS)
        else:
            return False
        at = os.open(place.point, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
        m.move_mount(tree, "", at, "", _ATTACH, operand=place.point)
    except OSError:
        return False
    return True


def _clone(tree: int) -> int:
    return m.open_tree(tree, "", m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_EMPTY_PATH)


def _clone_or_itself(tree: int) -> int:
    """What is not attached yet cannot be cloned before Linux 6.15; afterwards it is attached."""
    try:
        return _clone(tree)
    except OSError:
        return tree


def _new(kind: str, options: dict[str, str], attributes: int) -> int:
    context = m.fsopen(kind)
    for key, value in options.items():
        m.fsconfig(context, m.FSCONFIG_SET_STRING, key, value)
    m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
    return m.fsmount(context, attributes)
