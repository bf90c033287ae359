"""Subordinate id ranges that belong to one container alone: 65536 user ids and as many group ids of the host.

The ranges come from the entries of user `sysvisor` in /etc/subuid and /etc/subgid (subuid(5)); where it has none, from
`DEFAULT_FIRST`…`DEFAULT_LAST`. Who has which is recorded host-wide, in one registry for every state root, since two
roots share the host's ids: a symbolic link per range, made and read in one system call each.
"""

from __future__ import annotations

import errno
import fcntl
import os

from sysvisor_runc.errors import StateError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.state.record import SubidRecord

SIZE = 65536
USER = "sysvisor"

# Free by every convention we know of: above what useradd hands out (SUB_UID_MIN 100000 to SUB_UID_MAX 600100000),
# systemd-nspawn's 524288…1879048191, Incus' 1000000…1000999999 and what SSSD computes from domain ids (to 2000200000);
# below systemd's foreign ids 2147352576…2147418111 and the 2147483647 and up that Podman's manual recommends.
DEFAULT_FIRST = 0x78000000  # 2013265920
DEFAULT_LAST = 0x7FFDFFFF  # 2147352575: 2046 ranges

_SHARED = "+"  # ends the name of the mark

SUBUID = "/etc/subuid"
SUBGID = "/etc/subgid"
PASSWD = "/etc/passwd"


def registry_path() -> str:
    """Where ranges are recorded: /run/sysvisor-runc.subid, for other users than root in their own runtime directory."""
    uid = os.geteuid()
    if uid == 0:
        return "/run/sysvisor-runc.subid"
    return f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{uid}'}/sysvisor-runc.subid"


def allocate(directory: str, *, user: str = USER, registry: str = "", wanted: SubidRecord | None = None) -> SubidRecord:
    """A range that no other container on this host has, recorded for the container whose state is in `directory`.

    `directory` is an absolute path and exists already: a range is free again once its directory is gone and no process
    is left in it. The same directory gets the same range again whenever nobody has taken it in between. User and group
    ids start at the same number wherever both files allow it. `wanted` is a range that it must be, that of a
    checkpoint.

    Raises:
        StateError: no range is left, or none is configured for both users and groups, or the registry is unusable.
    """
    if wanted is not None:
        return _take(directory, wanted, registry or registry_path())
    uids, gids = _configured(user)
    slots = _Slots(uids, gids)
    if not len(slots):
        raise StateError(
            f"no {SIZE} subordinate ids for user {user!r} in {SUBUID} and {SUBGID} that this user namespace maps",
            hint=f"give it one line in each, such as `{user}:{DEFAULT_FIRST}:{64 * SIZE}`",
        )
    with _Registry(registry or registry_path()) as held:
        held.index()
        found = _choose(held, slots, directory)
        if found is None and held.sweep():
            found = _choose(held, slots, directory)
        if found is None:
            raise StateError(
                f"all {len(slots)} ranges of subordinate ids are in use",
                hint=f"delete containers, or give user {user!r} more in {SUBUID} and {SUBGID}",
            )
        held.record(*found, directory)
    return {"uid": found[0], "gid": found[1], "size": SIZE}


def _take(directory: str, wanted: SubidRecord, registry: str) -> SubidRecord:
    uid, gid = wanted["uid"], wanted["gid"]
    with _Registry(registry) as held:
        held.index()
        if held.overlaps(uid, gid) and held.owner(_name(uid, gid)) != directory:
            held.sweep()
        if held.overlaps(uid, gid) and held.owner(_name(uid, gid)) != directory:
            raise StateError(
                f"the ids of the checkpoint, {uid} and following, are another container's",
                hint="delete that one first, or restore elsewhere",
            )
        held.record(uid, gid, directory)
    return wanted


def ids_of_user(uid: int) -> tuple[int, int, int]:
    """Host (uid, gid, size) of the subordinate ids with which an ordinary user's containers count on from 1.

    All of a user's containers share them, as with other rootless runtimes: few users have more than one range.

    Raises:
        StateError: the user has not enough of them.
    """
    rows = (line.split(":") for line in _lines(PASSWD))
    user = next((row[0] for row in rows if len(row) > 2 and row[2] == str(uid)), str(uid))
    found = []
    for path in (SUBUID, SUBGID):
        intervals = (_entries(path, user) or []) + (_entries(path, str(uid)) or [])
        first = next((first for first, end in intervals if end - first >= SIZE - 1), None)
        if first is None:
            raise StateError(
                f"user {user!r} has no {SIZE - 1} subordinate ids in {path}",
                hint=f"usermod --add-subuids FIRST-LAST --add-subgids FIRST-LAST {user}, as root",
            )
        found.append(first)
    return found[0], found[1], SIZE - 1


def is_subordinate(uid: int) -> bool:
    """Whether /etc/subuid gives this id of the host to somebody and no user has it: outside of user namespaces it is
    nobody's.
    """
    if not any(first <= uid < end for first, end in _entries(SUBUID, None) or ()):
        return False
    return all(line.split(":")[2:3] != [str(uid)] for line in _lines(PASSWD))


def free(directory: str, subid: SubidRecord | None, *, registry: str = "") -> None:
    """Give back the range of the container in `directory`; without `subid`, whatever is recorded for it.

    Call it before the directory is removed: from then on anybody may take the range back anyway. Nothing to give back
    is no error.

    Raises:
        StateError: the registry is unusable.
    """
    path = registry or registry_path()
    if not os.path.isdir(path):
        return
    with _Registry(path) as held:
        names = held.names() if subid is None else [_name(subid["uid"], subid["gid"])]
        for name in names:
            if held.owner(name) == directory and not held.still_shared(name):
                held.unlink(name)


def share(uid: int, gid: int, *, registry: str = "") -> None:
    """Another container lives in the range that starts there: it stays taken until nobody is left in it.

    A range that is not in the registry is its owner's business.
    """
    path = registry or registry_path()
    if os.path.isdir(path):
        with _Registry(path) as held:
            held.mark_shared(_name(uid, gid))


def usage(*, user: str = USER, registry: str = "") -> tuple[int, int]:
    """How many ranges there are, and how many of them are recorded as taken. Raises StateError."""
    path = registry or registry_path()
    names = os.listdir(path) if os.path.isdir(path) else []
    taken = sum(not name.endswith(_SHARED) for name in names)
    return len(_Slots(*_configured(user))), taken


def _choose(held: _Registry, slots: _Slots, directory: str) -> tuple[int, int] | None:
    """The first free slot from the place that the directory's name hashes to, or the one that it already has."""
    count = len(slots)
    first = _hash(directory) % count
    for index in range(first, first + count):
        uid, gid = slots[index % count]
        if not held.overlaps(uid, gid):
            return uid, gid
        # Left by an earlier container of this name, whose directory was removed by hand, perhaps while it ran.
        if held.owner(_name(uid, gid)) == directory and not _near(_mapped_ids(), uid):
            return uid, gid
    return None


def _hash(text: str) -> int:
    """FNV-1a: spreads similar names, and is the same in every process, which `hash()` is not."""
    value = 0x811C9DC5
    for byte in os.fsencode(text):
        value = (value ^ byte) * 0x01000193 & 0xFFFFFFFF
    return value


def _name(uid: int, gid: int) -> str:
    return f"{uid}-{gid}"


class _Registry:
    """The directory of ranges in use, locked while it is a context.

    REGISTRY/           0700; its flock is the lock
        UID-GID         -> the state directory of the container that has the ranges that start there
        UID-GID+        -> "shared": other containers have joined its user namespace
    """

    __slots__ = ("_fd", "_gids", "_path", "_uids")

    def __init__(self, path: str) -> None:
        self._path = path
        self._fd = -1
        self._uids: dict[int, int] = {}
        self._gids: dict[int, int] = {}

    def __enter__(self) -> _Registry:
        try:
            try:
                os.mkdir(self._path, 0o700)
            except FileExistsError:
                pass
            self._fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            found = os.fstat(self._fd)
            if found.st_uid != os.geteuid() or found.st_mode & 0o022:
                raise OSError(errno.EPERM, "not a directory that only we can write to")
            fcntl.flock(self._fd, fcntl.LOCK_EX)
        except OSError as error:
            self._close()
            raise StateError(f"cannot use the registry of subordinate ids {self._path!r}: {reason(error)}")
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)

    def index(self) -> None:
        """Where ranges start, by their upper 16 bits: as ranges do not overlap, only one can start in each 65536."""
        self._uids.clear()
        self._gids.clear()
        for uid, gid in map(_parse_name, os.listdir(self._fd)):
            self._uids[uid // SIZE] = uid
            self._gids[gid // SIZE] = gid

    def names(self) -> list[str]:
        """All recorded ranges."""
        return [name for name in os.listdir(self._fd) if _parse_name(name)[0] >= 0]

    def owner(self, name: str) -> str | None:
        """The state directory that a range is recorded for, None where it is not recorded."""
        try:
            return os.readlink(name, dir_fd=self._fd)
        except FileNotFoundError:
            return None

    def overlaps(self, uid: int, gid: int) -> bool:
        """Whether a range from `uid` or `gid` shares an id with a recorded one (the files may have been edited)."""
        return _near(self._uids, uid) or _near(self._gids, gid)

    def record(self, uid: int, gid: int, directory: str) -> None:
        """Note who has a range. Raises StateError where it cannot be written."""
        try:
            os.symlink(directory, _name(uid, gid), dir_fd=self._fd)
        except FileExistsError:
            return  # its own, from before a crash
        except OSError as error:
            raise StateError(f"cannot record subordinate ids in {self._path!r}: {reason(error)}")

    def unlink(self, name: str) -> None:
        """Forget a range."""
        for each in (name + _SHARED, name):
            try:
                os.unlink(each, dir_fd=self._fd)
            except FileNotFoundError:
                pass

    def mark_shared(self, name: str) -> None:
        """Note that not only the range's owner lives in it."""
        if self.owner(name) is not None:
            try:
                os.symlink("shared", name + _SHARED, dir_fd=self._fd)
            except FileExistsError:
                pass

    def still_shared(self, name: str) -> bool:
        """Whether others than the owner may live in the range, and somebody does. Looks at every process if so."""
        return self.owner(name + _SHARED) is not None and _near(_mapped_ids(alive=True), _parse_name(name)[0])

    def sweep(self) -> bool:
        """Forget the ranges whose container directory is gone and in which nothing runs; whether there was any."""
        gone = [name for name in self.names() if not os.path.isdir(self.owner(name) or "")]
        if gone:
            # The directory alone proves little: it may have been removed by hand, or lie in another mount namespace.
            mapped = _mapped_ids()
            gone = [name for name in gone if not _near(mapped, _parse_name(name)[0])]
        for name in gone:
            self.unlink(name)
        self.index()
        return bool(gone)


def _near(starts: dict[int, int], first: int) -> bool:
    bucket = first // SIZE
    return any(abs(starts[b] - first) < SIZE for b in (bucket - 1, bucket, bucket + 1) if b in starts)


def _parse_name(name: str) -> tuple[int, int]:
    """The ids that a link is named after; what is not ours gets a place where it is in nobody's way."""
    uid, _, gid = name.partition("-")
    try:
        return int(uid), int(gid)
    except ValueError:
        return -SIZE, -SIZE


def _mapped_ids(*, alive: bool = False) -> dict[int, int]:
    """The host user ids at which user namespaces of processes start, by their upper 16 bits; `alive`: not zombies'."""
    starts: dict[int, int] = {}
    for name in os.listdir("/proc"):
        if not name.isdecimal() or (alive and _is_zombie(name)):
            continue
        for first, _ in _intervals(f"/proc/{name}/uid_map", column=1):
            starts[first // SIZE] = first
    return starts


def _is_zombie(pid: str) -> bool:
    """It has a map still, until its parent looks. One whose first thread alone has ended is none (num_threads)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(1024).rpartition(b") ")[2].split()
    except OSError:
        return True  # gone
    return fields[0] in (b"Z", b"X") and int(fields[17]) <= 1


def _configured(user: str) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """The intervals (first, end) of user and of group ids that containers may have."""
    uids, gids = _entries(SUBUID, user), _entries(SUBGID, user)
    if uids is None and gids is None:
        default = [(DEFAULT_FIRST, DEFAULT_LAST + 1)]
        uids, gids = (_without(default, _entries(path, None) or []) for path in (SUBUID, SUBGID))
    elif uids is None or gids is None:
        has, lacks = (SUBGID, SUBUID) if uids is None else (SUBUID, SUBGID)
        raise StateError(
            f"user {user!r} has subordinate ids in {has} but none in {lacks}", hint="give it the same line in both"
        )
    # In a nested user namespace only what is mapped into it can be mapped onwards.
    return (
        _intersect(uids, _intervals("/proc/self/uid_map", column=0)),
        _intersect(gids, _intervals("/proc/self/gid_map", column=0)),
    )


def _entries(path: str, user: str | None) -> list[tuple[int, int]] | None:
    """The intervals that `path` gives to `user` (by name or number), or None; all of everybody's without `user`."""
    rows = [line.strip().split(":") for line in _lines(path)]
    rows = [row for row in rows if len(row) == 3 and row[1].isdecimal() and row[2].isdecimal()]
    if user is not None:
        names = {user}
        if any(row[0].isdecimal() for row in rows):
            names |= _uid_of(user)
        rows = [row for row in rows if row[0] in names]
    return [(int(row[1]), int(row[1]) + int(row[2])) for row in rows] or None


def _uid_of(user: str) -> set[str]:
    """The number of a user of this host as a set of one, or none. Reads the file: NSS would load libraries."""
    rows = (line.split(":") for line in _lines(PASSWD))
    return {row[2] for row in rows if row[0] == user and len(row) > 2}


def _lines(path: str) -> list[str]:
    """The lines of a host file, none where there is no such file."""
    try:
        with open(path, "rb", buffering=0) as file:
            return os.fsdecode(file.readall()).split("\n")
    except FileNotFoundError:
        return []


def _intervals(path: str, *, column: int) -> list[tuple[int, int]]:
    """The intervals in one column of a uid_map or gid_map (user_namespaces(7)): 0 inside, 1 outside."""
    try:
        with open(path, "rb", buffering=0) as file:
            rows = [line.split() for line in file.readall().splitlines()]
    except OSError:  # the process has ended, or a kernel without user namespaces
        return []
    return [(int(row[column]), int(row[column]) + int(row[2])) for row in rows]


def _intersect(left: list[tuple[int, int]], right: list[tuple[int, int]]) -> list[tuple[int, int]]:
    pairs = [(max(a, c), min(b, d)) for a, b in left for c, d in right]
    return [(first, end) for first, end in pairs if first < end]


def _without(intervals: list[tuple[int, int]], taken: list[tuple[int, int]]) -> list[tuple[int, int]]:
    for start, stop in taken:
        cut = [(a, min(b, start)) for a, b in intervals] + [(max(a, stop), b) for a, b in intervals]
        intervals = [(first, end) for first, end in cut if first < end]
    return intervals


class _Slots:
    """The ranges that the configured intervals hold, as a sequence of (uid, gid), computed when asked for."""

    __slots__ = ("_gids", "_uids")

    def __init__(self, uids: list[tuple[int, int]], gids: list[tuple[int, int]]) -> None:
        common = _starts(_intersect(uids, gids))
        self._uids = common or _starts(uids)
        self._gids = common or _starts(gids)

    def __len__(self) -> int:
        return min(_count(self._uids), _count(self._gids))

    def __getitem__(self, index: int) -> tuple[int, int]:
        return _pick(self._uids, index), _pick(self._gids, index)


def _starts(intervals: list[tuple[int, int]]) -> list[range]:
    """Where ranges of SIZE start in each interval, those that hold one."""
    return [range(first, end - SIZE + 1, SIZE) for first, end in sorted(set(intervals)) if end - first >= SIZE]


def _count(starts: list[range]) -> int:
    return sum(len(run) for run in starts)


def _pick(starts: list[range], index: int) -> int:
    for run in starts:
        if index < len(run):
            return run[index]
        index -= len(run)
    raise IndexError(index)
