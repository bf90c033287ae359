"""A container's cgroups: made, joined, configured, frozen, killed and removed through cgroupfs.

All paths are host paths below the cgroup mounts, taken from `paths.container_paths` or the container's record. What
only some verbs need (delegation, statistics, signalling) lives in modules of its own.
"""

from __future__ import annotations

import errno
import os

from sysvisor_runc.cgroup.file import DENIED, GONE, failure, read, read_if_there
from sysvisor_runc.cgroup.layout import LEAF_V1, LEAF_V2, UNIFIED
from sysvisor_runc.cgroup.settings import Setting, UsageCheck
from sysvisor_runc.errors import CgroupError
from sysvisor_runc.kernel.file import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.devices import Devices
    from sysvisor_runc.cgroup.layout import Layout


class Manager:
    """The cgroups of one container.

    Attributes:
        paths: controller, `name=…` or `unified` → absolute path; what the record stores. Those mounted together share
            one path. A hierarchy that could not be made for an unprivileged caller is dropped from it.
        delegated: whether processes go into a leaf below, which the container owns.
        incomplete: whether a hierarchy was dropped.
    """

    __slots__ = ("delegated", "incomplete", "paths")

    def __init__(self, paths: dict[str, str], *, delegated: bool = False) -> None:
        self.paths = paths
        self.delegated = delegated
        self.incomplete = False

    # ---- layout

    @property
    def v2(self) -> bool:
        """Whether cgroup2 is all there is."""
        return len(self.paths) == 1 and UNIFIED in self.paths

    def directories(self) -> dict[str, str]:
        """Path → the first controller there: every cgroup of the container once."""
        table: dict[str, str] = {}
        for controller, path in self.paths.items():
            table.setdefault(path, controller)
        return table

    def exec_paths(self) -> dict[str, str]:
        """As `paths`, but where the container's processes go."""
        if not self.delegated:
            return dict(self.paths)
        leaf = LEAF_V2 if self.v2 else LEAF_V1
        return {controller: f"{path}/{leaf}" for controller, path in self.paths.items()}

    def exists(self) -> bool:
        return any(os.path.isdir(path) for path in self.directories())

    # ---- making and removing

    def create(self, layout: Layout, *, tolerant: bool = False, member: int = 0) -> list[str]:
        """Make every cgroup, with v1 cpusets filled and v2 controllers passed down, ready to be joined.

        Returns the directories that were made, parents first: what an undo has to `rmdir`, last one first. Made ones
        are removed again where this fails midway. `tolerant` drops hierarchies that the caller may not write to
        (rootless without limits) instead of failing. Process `member` may be in there already: systemd put it there.

        Raises:
            CgroupError: a cgroup that exists already holds processes or is frozen; no permission; no cgroup mount.
        """
        if not self.paths and not self.incomplete:
            raise CgroupError(
                "no cgroup hierarchy is mounted", hint="mount -t cgroup2 cgroup2 /sys/fs/cgroup, or boot with systemd"
            )
        tops = {key: hierarchy.mountpoint for key, hierarchy in layout.by_controller().items()}
        made: list[str] = []
        try:
            for path, controller in self.directories().items():
                try:
                    self._create_one(path, controller, tops[controller], made, member)
                except OSError as e:
                    if not (tolerant and e.errno in DENIED):
                        raise failure("mkdir", e.filename or path, e) from None
                    self.paths = {key: value for key, value in self.paths.items() if value != path}
                    self.incomplete = True
        except BaseException:
            discard(made)
            raise
        return made

    def _create_one(self, path: str, controller: str, top: str, made: list[str], member: int) -> None:
        from sysvisor_runc.kernel.statfs import CGROUP2_SUPER_MAGIC, CGROUP_SUPER_MAGIC, statfs

        magic = CGROUP2_SUPER_MAGIC if controller == UNIFIED else CGROUP_SUPER_MAGIC
        if statfs(top) != magic:
            raise CgroupError(f"{top} is no cgroup file system", hint="something is mounted over it")
        before = len(made)
        _mkdir(path, top, made)
        if len(made) == before:
            from sysvisor_runc.cgroup.refusal import refuse_used

            refuse_used(path, frozen=path == self._freezer_path() and self.frozen(), member=member)
        if controller == UNIFIED:
            if self.v2:
                from sysvisor_runc.cgroup.controllers import pass_down

                pass_down(path, top)
        elif path == self.paths.get("cpuset"):
            fill_cpuset(path, top)

    def remove(self, *, patience: float = 3.0) -> None:
        """Remove every cgroup with what the container made below, within `patience` seconds. Absent ones are fine.

        Raises:
            CgroupError: processes are left, or no permission. All the others are removed first.
        """
        failed: CgroupError | None = None
        for path in self.directories():
            if failed is not None:
                patience = 0.0  # who is in one is in all
            try:
                os.rmdir(path)
                continue
            except FileNotFoundError:
                continue
            except OSError:  # in use, or with cgroups below
                pass
            from sysvisor_runc.cgroup.tree import remove

            try:
                remove(path, patience=patience)
            except CgroupError as e:
                failed = failed or e
        if failed is not None:
            raise failed

    # ---- joining

    def join_fds(self, paths: dict[str, str] | None = None) -> list[int]:
        """Files, open for writing and close-on-exec, into each of which a process writes b"0" to join.

        For the v1 hierarchies; cgroup2 is joined by `clone_into_fd`. The fds may be written from inside a user
        namespace: the kernel judges by who opened them (since Linux 5.16). A write of "0" to v1 `tasks` moves the one
        calling thread and takes 0.01 ms; a pid, or `cgroup.procs`, takes a lock that costs 5-15 ms on an idle machine.
        `paths` replaces `exec_paths()`.

        Raises:
            CgroupError: a cgroup is gone or may not be joined.
        """
        fds: list[int] = []
        seen = set()
        for controller, path in (paths or self.exec_paths()).items():
            if controller == UNIFIED or path in seen:
                continue
            seen.add(path)
            try:
                fds.append(os.open(path + "/tasks", os.O_WRONLY | os.O_CLOEXEC))
            except OSError as e:
                for fd in fds:
                    os.close(fd)
                raise failure("join", path, e) from None
        return fds

    def clone_into_fd(self, paths: dict[str, str] | None = None) -> int | None:
        """A directory fd of the cgroup2 cgroup for `CLONE_INTO_CGROUP`; None where cgroup2 is not mounted.

        A system container on pure v2 starts in the container's own cgroup, not in the leaf: unsharing the cgroup
        namespace there makes it the root that the container sees. `leaf_fd` then leads to the leaf.

        Raises:
            CgroupError: the cgroup is gone.
        """
        path = (paths or (self.paths if self.v2 else self.exec_paths())).get(UNIFIED)
        if path is None:
            return None
        try:
            return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as e:
            raise failure("join", path, e) from None

    def leaf_fd(self) -> int | None:
        """`cgroup.procs` of a delegated v2 cgroup's leaf, open for writing b"0"; None where there is no such leaf.

        Raises:
            CgroupError: the leaf is gone.
        """
        if not (self.delegated and self.v2):
            return None
        path = f"{self.paths[UNIFIED]}/{LEAF_V2}"
        try:
            return os.open(path + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError as e:
            raise failure("join", path, e) from None

    # ---- limits

    def apply(self, steps: list[Setting | UsageCheck | Devices]) -> None:
        """Write `steps` in order. Works on a running container as on a new one.

        Raises:
            CgroupError: a controller or file is missing, a value is refused, a usage check fails.
        """
        later: list[Setting] = []
        for index, step in enumerate(steps):
            path = self.paths.get(UNIFIED if self.v2 else step.controller)
            if isinstance(step, Setting):
                if path is None:
                    if step.optional:
                        continue
                    from sysvisor_runc.cgroup.refusal import no_controller

                    raise no_controller(step)
                if not self._write(path, step, last=False):
                    later.append(step)
                if later and (index + 1 == len(steps) or steps[index + 1].controller != step.controller):
                    for delayed in later:
                        self._write(path, delayed, last=True)
                    later.clear()
            elif isinstance(step, UsageCheck):
                from sysvisor_runc.cgroup.refusal import refuse_excess

                refuse_excess(path, step)
            elif path is not None or not self.incomplete:  # without privileges the kernel itself guards the devices
                step.apply(path, v2=self.v2)

    def _write(self, path: str, step: Setting, *, last: bool) -> bool:
        """Write one setting; False asks for another try later."""
        file = f"{path}/{step.file}"
        try:
            write(file, step.value)
            if step.exact and (real := read(file)) != step.value:
                from sysvisor_runc.cgroup.refusal import clamped

                raise clamped(step, real)
        except OSError as e:
            if e.errno in GONE and step.otherwise is not None:
                return self._write(path, step.otherwise, last=last)
            if e.errno in GONE and step.optional:
                return True
            if e.errno == errno.EINVAL and step.again and not last:
                return False
            if e.errno == errno.EBUSY and step.controller == "cpuset" and not last:
                from sysvisor_runc.cgroup.below import narrow_below

                narrow_below(path, step, self)
                return self._write(path, step, last=True)
            from sysvisor_runc.cgroup.refusal import refused

            raise refused(path, step, e) from None
        if (
            self.delegated
            and not self.v2
            and (step.controller == "cpuset" or step.flat or step.file == "memory.limit_in_bytes")
        ):
            from sysvisor_runc.cgroup.below import pass_on

            pass_on(path, step, self)
        return True

    # ---- processes

    def pids(self, *, recursive: bool = True) -> list[int]:
        """The container's processes, as the caller sees their pids."""
        from sysvisor_runc.cgroup.tree import pids

        path = self._process_path()
        return pids(path, recursive=recursive) if path else []

    def freeze(self) -> None:
        """Stop every process. Raises CgroupError: no freezer, or not frozen in time; then it is thawed again."""
        from sysvisor_runc.cgroup import freezer

        path = self._freezer_path()
        if path is None:
            raise CgroupError("cannot freeze: the container has no freezer cgroup")
        if self.v2:
            freezer.freeze_v2(path)
        else:
            freezer.freeze_v1(path)

    def thaw(self, *, recursive: bool = False) -> None:
        """Let them run again; with `recursive` also what the container froze below itself. Harmless if not frozen."""
        from sysvisor_runc.cgroup.freezer import thaw

        path = self._freezer_path()
        if path is not None:
            thaw(path, v2=self.v2, recursive=recursive)

    def frozen(self) -> bool:
        """Whether the container is paused, or about to be; one that is frozen only with what is above it is not."""
        path = self._freezer_path()
        if path is None:
            return False
        # self_freezing (since Linux 3.8) tells an own request from an ancestor's.
        file = path + ("/cgroup.freeze" if self.v2 else "/freezer.self_freezing")
        try:
            return read_if_there(file) == "1"
        except OSError as e:
            raise failure("read", file, e) from None

    def kill_all(self, signum: int) -> int:
        """Signal every process of the container, races with fork included. Returns how many were signalled (on v2
        with SIGKILL, how many there were).

        A v1-frozen task dies only once thawed, so SIGKILL thaws the whole tree afterwards.
        """
        from sysvisor_runc.cgroup.kill import kill_all

        path = self._process_path()
        return kill_all(self, path, signum) if path else 0

    def _process_path(self) -> str | None:
        """Where processes are listed: any hierarchy tells the same; freezer first, for it stops them while we look."""
        for key in (UNIFIED,) if self.v2 else ("freezer", "devices", "pids", "memory"):
            if key in self.paths:
                return self.paths[key]
        return next(iter(self.paths.values()), None)

    def _freezer_path(self) -> str | None:
        return self.paths.get(UNIFIED if self.v2 else "freezer")


def discard(made: list[str]) -> None:
    """Undo a `create`: remove exactly those directories, deepest first. Never fails: a full `remove` says why."""
    for path in reversed(made):
        try:
            os.rmdir(path)
        except OSError:
            pass


def _mkdir(path: str, top: str, made: list[str]) -> None:
    """Make `path` and what is missing between it and `top`. Raises OSError."""
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        return
    except FileNotFoundError:
        if path == top:
            raise
        _mkdir(os.path.dirname(path), top, made)
        os.mkdir(path, 0o755)
    made.append(path)


def fill_cpuset(path: str, top: str) -> None:
    """Give a v1 cpuset without cpus or nodes its parent's, from `top` down: nothing can join an empty one (ENOSPC)."""
    for file in ("cpuset.cpus", "cpuset.mems"):
        _inherit(path, file, top)


def _inherit(path: str, file: str, top: str) -> str:
    value = read(f"{path}/{file}")
    if value == "" and path != top:
        value = _inherit(os.path.dirname(path), file, top)
        try:
            write(f"{path}/{file}", value)
        except OSError as e:
            # An exclusive sibling: the container's own setting may still fit, and joining tells if none does.
            if e.errno != errno.EINVAL:
                raise
    return value
