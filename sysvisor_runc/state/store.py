"""The state root on disk: one directory per container, its lock, and atomic writes of its record.

Knows nothing of processes, cgroups or what a record means. Everything inside the root is reached through directory
descriptors, so that a directory swapped under a running command cannot lead it elsewhere.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from sysvisor_runc.errors import NoSuchContainer, StateError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from sysvisor_runc.state.lock import Lock
    from sysvisor_runc.state.record import Record

_ID_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-.")
_ID_MAX = 255  # NAME_MAX

_RECORD_MAX = 64 << 20
_OPEN_DIR = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

LOCK_TIMEOUT = 30.0


def check_id(container_id: str) -> str:
    """`container_id`, if it can name a container.

    Raises:
        StateError: `invalid container ID format`; the rules are runc's, and 255 bytes at most.
    """
    if not container_id or container_id in (".", "..") or not _ID_CHARACTERS.issuperset(container_id):
        raise StateError(
            f"invalid container ID format: {container_id!r}", hint="letters, digits and _ + - . make an id, not . or .."
        )
    if len(container_id) > _ID_MAX:
        raise StateError(f"invalid container ID format: longer than {_ID_MAX} characters")
    return container_id


class Store:
    """A state root.

        ROOT/               0700, never a symbolic link, writable by its owner alone
            ID/             one container, see Entry
            @NAME           anything else: no id has an @

    Attributes:
        root: its absolute path.
    """

    __slots__ = ("_fd", "root")

    def __init__(self, root: str) -> None:
        self.root = os.path.abspath(root)
        self._fd = -1

    def create(self, container_id: str) -> Entry:
        """Make the directory of a new container, and the state root with its parents where missing.

        The entry holds the container's lock until it is unlocked or closed.

        Raises:
            StateError: `container with given ID already exists`, a bad id, an unsafe or unwritable state root.
        """
        check_id(container_id)
        try:
            os.mkdir(container_id, 0o700, dir_fd=self.fd(create=True))
        except FileExistsError:
            raise StateError(
                f"container with given ID already exists: {container_id!r}",
                hint="delete it first, or choose another id",
            )
        except OSError as error:
            raise self._unusable("create a container in", error)
        try:
            entry = self.open(container_id)
        except NoSuchContainer:
            raise StateError(f"container {container_id!r} was deleted while it was being created")
        except BaseException:  # no descriptor left, perhaps
            os.rmdir(container_id, dir_fd=self.fd())
            raise
        try:
            entry.hold()
        except BaseException:
            entry.close()
            raise
        return entry

    def open(self, container_id: str) -> Entry:
        """The container's entry, whether it has a record yet or not.

        Raises:
            NoSuchContainer: `container does not exist`.
            StateError: a bad id, an unsafe or unreadable state root.
        """
        check_id(container_id)
        try:
            dirfd = os.open(container_id, _OPEN_DIR, dir_fd=self.fd())
        except (FileNotFoundError, NotADirectoryError):
            raise NoSuchContainer(
                f"container does not exist: {container_id!r}", hint=f"`list` shows the containers of {self.root}"
            )
        except OSError as error:
            raise self._unusable("open a container in", error)
        return Entry(self, container_id, dirfd)

    def ids(self) -> list[str]:
        """The ids of all containers, with a record or without, sorted.

        Raises:
            FileNotFoundError: there is no state root.
            StateError: it is unsafe or cannot be read.
        """
        try:
            with os.scandir(self.fd()) as entries:
                names = [
                    e.name for e in entries if _ID_CHARACTERS.issuperset(e.name) and e.is_dir(follow_symlinks=False)
                ]
        except FileNotFoundError:
            raise
        except OSError as error:
            raise self._unusable("read", error)
        return sorted(names)

    def fd(self, *, create: bool = False) -> int:
        """The root's directory descriptor, opened and checked at first use; with `create` it is made where missing.

        Raises:
            FileNotFoundError: there is no state root.
            OSError: it cannot be opened or made.
            StateError: somebody else could put something into it.
        """
        if self._fd < 0:
            try:
                self._fd = os.open(self.root, _OPEN_DIR)
            except FileNotFoundError:
                if not create:
                    raise
                _make_directories(self.root)
                self._fd = os.open(self.root, _OPEN_DIR)
            self._check_root()
        return self._fd

    def _check_root(self) -> None:
        """Refuse a root in which somebody else could put or exchange a container's directory."""
        found = os.fstat(self._fd)
        if found.st_uid not in (os.geteuid(), 0):
            problem = f"belongs to uid {found.st_uid}"
        elif found.st_mode & 0o022:
            problem = f"is writable by others (mode {stat.S_IMODE(found.st_mode):04o})"
        else:
            return
        self.close()
        raise StateError(
            f"state root {self.root!r} {problem}", hint="it must be yours alone: chmod 0700, or give --root"
        )

    def _unusable(self, action: str, error: OSError) -> StateError:
        """An error of the file system below the root, told with what to do about it."""
        hints = {
            errno.ELOOP: "the state root must not be a symbolic link",
            errno.ENOTDIR: "the state root must be a directory, not a symbolic link or a file",
        }
        hint = hints.get(error.errno or 0, _HINTS.get(error.errno or 0))
        return StateError(f"cannot {action} state root {self.root!r}: {reason(error)}", hint=hint)

    def close(self) -> None:
        """Close the root; it is opened again at the next use."""
        if self._fd >= 0:
            fd, self._fd = self._fd, -1
            os.close(fd)


_HINTS = {
    errno.EACCES: "run as root, or give a --root that you may write to",
    errno.EPERM: "run as root, or give a --root that you may write to",
    errno.EROFS: "its file system is read-only: give another --root",
    errno.ENOSPC: "its file system is full: free some space, or give another --root",
    errno.EDQUOT: "the disk quota is used up: free some space, or give another --root",
}


class Entry:
    """The directory of one container; closes its descriptor when done with, as a context manager or by `close()`.

        ID/                 0700; its flock is the container's lock
            state.json      the record, replaced whole by rename
            state.json.new  a record being written
            exec.fifo       exists from create until start (see state.observe)

    Attributes:
        id: the container's.
        path: of the directory, absolute.
        dirfd: the directory, close-on-exec. A process that inherits it must close it early, or the lock outlives us.
    """

    RECORD = "state.json"
    STAGED = "state.json.new"
    FIFO = "exec.fifo"

    __slots__ = ("_locked", "_store", "dirfd", "id", "path")

    def __init__(self, store: Store, container_id: str, dirfd: int) -> None:
        self._store = store
        self.id = container_id
        self.path = f"{store.root}/{container_id}"
        self.dirfd = dirfd
        self._locked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the directory, which drops its lock; closing twice is fine."""
        if self.dirfd >= 0:
            fd, self.dirfd = self.dirfd, -1
            os.close(fd)

    def lock(self, exclusive: bool = True, *, timeout: float = LOCK_TIMEOUT) -> Lock:
        """The container's lock, for a `with` statement: exclusive for who changes it, shared for who must see it still.

        Raises (on entering):
            NoSuchContainer: the container was deleted while we waited.
            StateError: another command has held it for `timeout` seconds.
        """
        from sysvisor_runc.state.lock import Lock

        return Lock(self, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH, timeout)

    def hold(self) -> None:
        """Take the lock of a directory that was just made, for as long as this entry is open or until `unlock`.

        Raises:
            NoSuchContainer: somebody has deleted it already.
        """
        try:
            fcntl.flock(self.dirfd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # somebody looks at it, or is about to delete it
            self.lock().__enter__()
        self._locked = True
        if not self.is_current():
            raise NoSuchContainer(f"container does not exist: {self.id!r}", hint="it was deleted just now")

    def unlock(self) -> None:
        """Let other commands change the container, for every process that shares this descriptor."""
        self._locked = False
        if self.dirfd >= 0:
            fcntl.flock(self.dirfd, fcntl.LOCK_UN)

    def busy(self) -> bool:
        """Whether another command holds the lock to change the container, at this moment."""
        if self._locked:
            return False
        # A descriptor of its own: on ours, the probe would convert and then drop a shared lock that we hold.
        fd = os.open(".", _OPEN_DIR, dir_fd=self.dirfd)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(fd)
        return False

    def holds_lock(self, exclusive: bool) -> None:
        """For Lock: tell whether this entry is the one that holds the lock to change the container."""
        self._locked = exclusive

    def load(self, *, staged: bool = False) -> Record:
        """The record; with `staged` the one that the command which creates the container is about to make it.

        Raises:
            NoSuchContainer: it was deleted since this entry was opened.
            NoRecord: there is none, or nothing that can be read as one.
            StateError: it cannot be read, or is another runtime's.
        """
        name = self.STAGED if staged else self.RECORD
        try:
            fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self.dirfd)
        except FileNotFoundError:
            if not self.is_current():
                raise NoSuchContainer(f"container does not exist: {self.id!r}", hint="it was deleted just now")
            raise self._unrecorded()
        except OSError as error:
            raise StateError(f"cannot read the state of container {self.id!r}: {reason(error)}")
        try:
            data = _read_all(fd)
        except OSError as error:
            raise StateError(f"cannot read the state of container {self.id!r}: {reason(error)}")
        finally:
            os.close(fd)
        return self._decode(data)

    def _decode(self, data: bytes) -> Record:
        from sysvisor_runc.jsonlight import loads
        from sysvisor_runc.state.record import VERSION

        try:
            record = loads(data)
        except ValueError as error:
            raise self._unrecorded(f"is not readable: {error}")
        # All fields are written together, so one look tells a record from a foreign file.
        if not isinstance(record, dict) or record.get("id") != self.id or not isinstance(record.get("initPid"), int):
            raise self._unrecorded("is not a container's record", record)
        version = record.get("version")
        if not isinstance(version, int) or version > VERSION:
            raise StateError(
                f"state of container {self.id!r} has version {version!r}, this program knows {VERSION}",
                hint="use the version of sysvisor-runc that created it",
            )
        return record  # type: ignore[return-value]  # the shape that save() gave it

    def _unrecorded(self, problem: str = "", record: object = None) -> StateError:
        from sysvisor_runc.state.unrecorded import explain

        return explain(self.id, self.dirfd, self._store.root, problem, record)

    def save(self, record: Record) -> None:
        """Replace the record, whole or not at all. The caller holds the lock, or has just created the entry.

        Raises:
            StateError: it cannot be written; the old record is untouched.
        """
        self.stage(record)
        self.commit()

    def stage(self, record: Record) -> None:
        """Write `record` beside the one that counts, which `commit` then replaces in one step.

        Raises:
            StateError: it cannot be written.
        """
        from sysvisor_runc.jsonlight import dumps

        # No fsync: after a crash of the machine there is no container left that the record could tell of.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            fd = os.open(self.STAGED, flags, 0o600, dir_fd=self.dirfd)
            try:
                _write_all(fd, dumps(record).encode("utf-8", "surrogateescape"))
            finally:
                os.close(fd)
        except OSError as error:
            raise self.unwritable(error)

    def commit(self) -> None:
        """Let the staged record be the record.

        Raises:
            StateError: there is none, or it cannot be renamed.
        """
        try:
            os.rename(self.STAGED, self.RECORD, src_dir_fd=self.dirfd, dst_dir_fd=self.dirfd)
        except OSError as error:
            raise self.unwritable(error)

    def unwritable(self, error: OSError) -> StateError:
        """A failure to write something in the directory, for a person; what was staged is removed."""
        self._unlink_quietly(self.STAGED)
        hint = _HINTS.get(error.errno or 0)
        return StateError(f"cannot write the state of container {self.id!r}: {reason(error)}", hint=hint)

    def _unlink_quietly(self, name: str) -> None:
        try:
            os.unlink(name, dir_fd=self.dirfd)
        except OSError:
            pass

    def remove(self) -> None:
        """Remove the directory with all that is in it, the record last: interrupted, it can simply be done again.

        Raises:
            StateError: something in it cannot be removed.
        """
        try:
            # Again where somebody has put something into it meanwhile: a supervisor notes how the container ended.
            while not self._try_remove():
                pass
        except FileNotFoundError:
            return
        except OSError as error:
            raise StateError(f"cannot remove the state of container {self.id!r} in {self.path!r}: {reason(error)}")
        finally:
            self._store.close()  # one that is run again and again has a store each time

    def _try_remove(self) -> bool:
        """Whether the directory is gone; False where it was not empty any more. Raises OSError."""
        _clear(self.dirfd, keep=self.RECORD)
        try:
            os.unlink(self.RECORD, dir_fd=self.dirfd)
        except FileNotFoundError:
            pass
        try:
            os.rmdir(self.id, dir_fd=self._store.fd())
        except OSError as error:
            if error.errno == errno.ENOTEMPTY and self.is_current() and os.listdir(self.dirfd):
                return False
            raise
        return True

    def is_current(self) -> bool:
        """Whether the directory we have open is still the one that the id names, not deleted or made anew since."""
        try:
            named = os.stat(self.id, dir_fd=self._store.fd(), follow_symlinks=False)
        except OSError:
            return False
        return os.path.samestat(named, os.fstat(self.dirfd))


def _make_directories(path: str) -> None:
    """mkdir -p with mode 0700 throughout (os.makedirs leaves the parents to the umask)."""
    parent = os.path.dirname(path)
    if not os.path.isdir(parent):
        _make_directories(parent)
    try:
        os.mkdir(path, 0o700)
    except FileExistsError:
        pass


def _read_all(fd: int) -> bytes:
    size = os.fstat(fd).st_size
    if size > _RECORD_MAX:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG))
    data = os.read(fd, size + 1)
    while chunk := os.read(fd, 1 << 16):
        data += chunk
    return data


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _clear(dirfd: int, *, keep: str = "") -> None:
    """Remove what is in a directory of ours but `keep`; symbolic links are removed, never followed."""
    for name in os.listdir(dirfd):
        if name == keep:
            continue
        try:
            os.unlink(name, dir_fd=dirfd)
        except FileNotFoundError:
            continue  # a supervisor has renamed its note over the one before
        except IsADirectoryError:
            inner = os.open(name, _OPEN_DIR, dir_fd=dirfd)
            try:
                _clear(inner)
            finally:
                os.close(inner)
            os.rmdir(name, dir_fd=dirfd)
