"""Create a container: the host's side of a launch, from the bundle to an init that waits.

Every thing acquired goes on the undo stack. Used by `create` and by `run`, which differ in who starts init and when.
"""

from __future__ import annotations

import os

from sysvisor_runc import log
from sysvisor_runc.cgroup.driver import open_driver
from sysvisor_runc.cgroup.layout import detect
from sysvisor_runc.cgroup.resources import convert as cgroup_settings
from sysvisor_runc.child import channel as messages
from sysvisor_runc.child.main import Wiring
from sysvisor_runc.errors import SpecError, reason
from sysvisor_runc.kernel import capability
from sysvisor_runc.kernel.namespaces import CLONE_NEWTIME, CLONE_NEWUSER, in_initial_user
from sysvisor_runc.kernel.prctl import capget
from sysvisor_runc.launch import limits, notes, trees
from sysvisor_runc.launch.clone import clone_child
from sysvisor_runc.launch.conversation import InitVanished
from sysvisor_runc.launch.driver import Driver
from sysvisor_runc.launch.ids import on_host, own_id
from sysvisor_runc.launch.ocistate import state_json
from sysvisor_runc.launch.stdio import give_stdio
from sysvisor_runc.launch.steps import FAULT, reached, reached_in_child
from sysvisor_runc.plan import build
from sysvisor_runc.plan.mounts import CgroupView
from sysvisor_runc.plan.namespaces import NAMESPACES
from sysvisor_runc.spec.load import load
from sysvisor_runc.state.process import handle_of, start_time
from sysvisor_runc.state.record import new_record
from sysvisor_runc.state.store import Entry, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.devices import Devices
    from sysvisor_runc.cgroup.layout import Layout
    from sysvisor_runc.cgroup.manager import Manager
    from sysvisor_runc.cgroup.settings import Setting, UsageCheck
    from sysvisor_runc.launch.child import Child
    from sysvisor_runc.launch.conversation import Conversation
    from sysvisor_runc.launch.fs import FsLaunch
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.launch.undo import UndoStack
    from sysvisor_runc.launch.unit import UnitLaunch
    from sysvisor_runc.plan.plan import Plan
    from sysvisor_runc.plan.seccomp_cache import Filter
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.state.record import CgroupRecord, Record, SubidRecord
    from sysvisor_runc.syscont.traits import Traits


class Created:
    """A container whose init waits.

    Attributes:
        start: write one byte here to let init go on; -1 after `create`, where exec.fifo does it.
        report: reads what the last stage could not do; end of file once the program runs.
        console: the terminal's master, -1 where there is none or it was sent away.
        given: the configuration before its conversion.
        fs: what is registered with sysvisor-fs, to be kept once the launch has succeeded.
    """

    __slots__ = (
        "child", "console", "conversation", "entry", "fs", "given", "manager", "plan", "record", "report", "start",
    )  # fmt: skip

    def __init__(
        self,
        entry: Entry,
        record: Record,
        plan: Plan,
        child: Child,
        manager: Manager,
        *,
        conversation: Conversation,
        start: int,
        report: int,
        console: int,
        given: Spec,
        fs: FsLaunch | None = None,
    ) -> None:
        self.entry = entry
        self.record = record
        self.plan = plan
        self.child = child
        self.manager = manager
        self.conversation = conversation
        self.start = start
        self.report = report
        self.console = console
        self.given = given
        self.fs = fs

    def state(self, status: str) -> bytes:
        """The container's state for a hook."""
        record = self.record
        pid = self.child.pid if status != "stopped" else 0
        return state_json(record["id"], record["ociVersion"], status, pid, record["bundle"], record["annotations"])


def create(request: Request, undo: UndoStack) -> Created:
    """Create the container; what it took is on `undo`, for the caller to keep or unwind.

    Raises:
        SysvisorError: something failed; nothing is left behind once `undo` is unwound.
    """
    launch = Launch(request, undo)
    launch.prepare()
    launch.acquire()
    return launch.converse()


class Launch:
    """One launch: the values that its steps hand to each other."""

    def __init__(self, request: Request, undo: UndoStack) -> None:
        self.request = request
        self.undo = undo
        self.bundle = os.path.abspath(request.bundle)
        self.layout: Layout = detect()
        self.syscont = request.syscont
        # Without limits rather than not at all; and where mounts are not ours to clone, the child does it.
        self.rootless = os.geteuid() != 0 if request.rootless is None else request.rootless
        self.unprivileged = not capget()[0] >> 21 & 1  # CAP_SYS_ADMIN
        self.traits: Traits | None = None
        self.fs: FsLaunch | None = None
        self.subid: SubidRecord | None = None
        self.spec: Spec
        self.given: Spec
        self.entry: Entry
        self.plan: Plan
        self.unit: UnitLaunch | None = None
        self.manager: Manager
        self.record: Record
        self.settings: list[Setting | UsageCheck | Devices] = []
        self.opened: dict[int, int] = {}
        self.idmapped = False
        self.init_start = 0
        self.rdt = ""

    # ---- before anything is acquired outside the state root

    def prepare(self) -> None:
        """Load the spec, make the state entry, convert, and plan."""
        request = self.request
        self.spec = self.given = self._load()
        self._check_terminal()
        reached("state")
        if request.again is None:
            self.entry = Store(request.root).create(request.container_id)
            self.undo.push("state directory", self.entry.remove)
        else:
            self.entry = request.again.entry
        if self.syscont:
            self._convert()
        reached("plan")
        if request.systemd_cgroup:
            from sysvisor_runc.launch import unit

            self.unit = unit.UnitLaunch(request, self.spec)
        self.manager = self._place_cgroups()
        if request.again is not None and self.unit is None:
            # A relative path counts from the caller's cgroup, which was another one then.
            self.manager.paths = dict(request.again.record["cgroup"]["paths"])
        spec = self.spec
        if request.service is not None:
            spec = request.service.prepare(spec, self.entry, detached=request.detached)
        self.plan = build.build(spec, self._facts())
        resources = (self.spec.get("linux") or {}).get("resources") or {} if self.unit is None else self.unit.resources
        self.settings = cgroup_settings(resources, self.layout.kind)
        self.plan.settings = self.settings
        self._check_rootfs()
        if self.plan.child.late_namespaces & CLONE_NEWTIME and not os.path.exists("/proc/self/ns/time"):
            raise SpecError("linux.namespaces", "this kernel has no time namespaces", hint="they need Linux 5.6")
        if log.debugging():
            for line in self.plan.describe():
                log.debug(f"plan: {line}")

    def _place_cgroups(self) -> Manager:
        manager = open_driver(
            self.layout,
            (self.spec.get("linux") or {}).get("cgroupsPath"),
            self.request.container_id,
            unit=None if self.unit is None else self.unit.cgroup,
            delegated=self.traits is not None and self.traits.delegate_cgroup,
        )
        if self.rootless and self.unit is None:
            from sysvisor_runc.launch.rootless import keep_writable

            keep_writable(manager)
        return manager

    def _load(self) -> Spec:
        """The spec as it is; whether it is to be converted is in `self.syscont` then."""
        if self.request.again is not None:
            return self.request.again.spec
        warnings: list[str] = []
        spec = self._load_from_bundle(warnings)
        for warning in warnings:
            log.warning(warning)
        return spec

    def _load_from_bundle(self, warnings: list[str]) -> Spec:
        if self.syscont:
            spec = load(self.bundle, warnings, rootless=os.geteuid() != 0, added=("user", "cgroup", "time"))
            from sysvisor_runc.syscont.settings import is_disabled

            if not is_disabled(spec, allowed=not self.request.only_syscont):
                return spec
            self.syscont = False
            warnings.clear()
        return load(self.bundle, warnings, rootless=os.geteuid() != 0)

    def _convert(self) -> None:
        from sysvisor_runc.launch.syscont import convert_spec

        if self.request.fs:
            from sysvisor_runc.launch.fs import FsLaunch

            self.fs = FsLaunch(self.request, self.entry, self.spec, self.undo)
        mountpoint = None if self.fs is None else self.fs.mountpoint
        converted = convert_spec(self.spec, self.request, self.bundle, self.layout, self.entry, self.undo, mountpoint)
        self.spec, self.traits, self.subid = converted

    def _check_terminal(self) -> None:
        terminal = self.spec["process"].get("terminal", False)
        if terminal or self.request.console_socket:
            from sysvisor_runc.launch.terminal import check_request

            check_request(self.request, terminal=terminal)

    def _facts(self) -> build.Facts:
        linux = self.spec.get("linux") or {}
        namespaces = linux.get("namespaces") or ()
        has_cgroupns = any(n["type"] == "cgroup" for n in namespaces)
        _, held, _ = capget()
        known = (1 << capability.last_cap() + 1) - 1
        view = _cgroup_view(self.manager, self.layout, namespace=has_cgroupns)
        facts = build.Facts(self.request.container_id, self.bundle, view, held=held, known=known)
        facts.may_mknod = in_initial_user()
        facts.no_pivot = self.request.no_pivot
        facts.no_new_keyring = self.request.no_new_keyring
        facts.preserve_fds = self.request.preserve_fds
        facts.traits = self.traits
        # The owner has all rights inside; a root who lacks some has them by that alone, to save the container for one.
        facts.own_id = own_id(self.spec, self.subid) if held & known == known else None
        facts.seccomp = self._seccomp()
        return facts

    def _seccomp(self) -> Filter | None:
        profile = (self.spec.get("linux") or {}).get("seccomp")
        if not profile or not profile.get("defaultAction"):
            return None
        from sysvisor_runc.plan import seccomp

        compiled = seccomp.compile(profile, f"{self.request.root}/@seccomp")
        log.debug(f"seccomp filter flags: {compiled.flags}")
        return compiled

    def _check_rootfs(self) -> None:
        try:
            fd = os.open(self.plan.rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            hint = "root.path is relative to the bundle" if error.errno == 2 else None
            raise SpecError("root.path", f"{self.plan.rootfs!r}: {reason(error)}", hint=hint) from error
        os.close(fd)

    # ---- acquire, clone

    def acquire(self) -> None:
        """Make the cgroup, unless that is left to systemd, and open the trees."""
        unit = self.unit
        if unit is None:
            self._note_cgroups()
            reached("cgroup")
            made = self.manager.create(self.layout, tolerant=self.rootless)
            self.undo.push("cgroup", lambda: _remove_cgroup(self.manager, made))
            self._configure_cgroup()
        else:
            self.undo.push("unit", lambda: unit.undo(self.manager))
        reached("rdt")
        if self.plan.intel_rdt is not None:
            from sysvisor_runc.launch.rdt import apply_rdt

            self.rdt = apply_rdt(
                self.plan.intel_rdt,
                self.request.container_id,
                self.undo,
                lambda path: notes.note(self.entry, "rdt", path),
            )
        reached("trees")
        if self.unprivileged:
            from sysvisor_runc.launch.rootless import leave_to_child

            self.plan.child.own_trees = leave_to_child(self.plan.trees)
            return
        if self.plan.overlay is not None:
            from sysvisor_runc.launch.overlay import plan_work

            plan_work(self.plan.overlay, self.entry, self.undo)
        early = None if unit is None else unit.early_trees(self.plan.trees, self.manager)
        self.opened = trees.open_trees(self.plan.trees, early)
        self.undo.push("trees", lambda: trees.close_trees(self.opened))
        if self.plan.joined_sysctl:
            from sysvisor_runc.launch.foreign import write_joined_sysctls

            write_joined_sysctls(self.plan.join, self.plan.joined_sysctl)
        if self.plan.child.new_user:
            self._lock_trees(self.opened)

    def _configure_cgroup(self) -> None:
        reached("settings")
        self.manager.apply(self.settings)
        if self.traits is not None and self.traits.delegate_cgroup:
            from sysvisor_runc.cgroup.delegation import delegate

            uid, gid = on_host(self.plan.uid_mappings, 0), on_host(self.plan.gid_mappings, 0)
            delegate(self.manager, uid, gid)

    def _start_unit(self, unit: UnitLaunch, pid: int) -> None:
        """Have systemd make the unit around the child, and do in its cgroups what systemd does not."""
        reached("cgroup")
        unit.start(self.entry, pid, self.spec, v2=self.manager.v2)
        self._note_cgroups()
        self.manager.create(self.layout, tolerant=self.rootless, member=pid)
        self._configure_cgroup()
        opened = trees.open_trees(self.plan.trees, unit.late_trees)
        if self.plan.child.new_user:
            self._lock_trees(opened)
        unit.let_in(self.manager, pid, opened)

    def _wire_cgroups(self, wiring: Wiring) -> int | None:
        """Give the child what lets it into its cgroups; the descriptor of the one to be cloned into, if any."""
        if self.unit is not None:
            wiring.late = self.unit.child_end()
            return None
        wiring.join = self.manager.join_fds()
        leaf = self.manager.leaf_fd()
        wiring.leaf = -1 if leaf is None else leaf
        return self.manager.clone_into_fd()

    def _lock_trees(self, opened: dict[int, int]) -> None:
        from sysvisor_runc.launch.locked import lock_restricted

        self.idmapped = lock_restricted(self.plan, opened, idmapped=self.idmapped)

    def _note_cgroups(self) -> None:
        """For `delete --force`, should we be killed from here on."""
        notes.note(self.entry, "cgroup", *(f"{key} {path}" for key, path in self.manager.paths.items()))
        if self.manager.delegated:
            notes.note(self.entry, "delegated", "yes")

    def converse(self) -> Created:
        """Clone the child, write what only the host may, and follow it until it waits."""
        host, child_end = messages.pair()
        report = os.pipe()
        start_read, start_write = self._start_pipe()
        wiring = Wiring(child_end, self.opened, start_read, report[1], capability.last_cap())
        cgroup_fd = self._wire_cgroups(wiring)
        wiring.state = self._hook_state
        wiring.reached = reached_in_child() if FAULT else None
        handed = -1
        if self.plan.child.console is None:
            give_stdio(on_host(self.plan.uid_mappings, self.plan.child.process.identity.uid))
        else:
            from sysvisor_runc.launch.master import wire

            handed = wire(wiring)
        reached("clone")
        close_in_child = [host.read_fd, host.write_fd, report[0], self.entry.dirfd]
        close_in_child += [fd for fd in (start_write, handed) if fd >= 0]
        if self.unit is not None:
            close_in_child += self.unit.descriptors()
        if self.fs is not None:
            wiring.fs_socket = self.fs.child_end()
            close_in_child += self.fs.descriptors()
        child = clone_child(self.plan, wiring, cgroup_fd, close_in_child, host)
        self.undo.push("init", child.kill)
        reached("init")
        _close_childs(wiring, cgroup_fd)
        # Until it gets GO it ends by itself if we are killed; from then on it is in the cgroup.
        self.init_is(child.pid)
        if self.unit is not None:
            self._start_unit(self.unit, child.pid)
        self._after_clone(child)
        reached("go")
        driver = self._drive(host, child, report[0], handed)
        host.close()
        trees.close_trees(self.opened)
        if self.plan.scheduler is not None:
            # Now that it is in its cgroup: a cpuset and some policies exclude each other (sched_setattr(2), EPERM).
            limits.set_scheduler(child.pid, self.plan.scheduler)
        self.commit_record(child)
        return Created(
            self.entry,
            self.record,
            self.plan,
            child,
            self.manager,
            conversation=driver.conversation,
            start=start_write,
            report=report[0],
            console=driver.console,
            given=self.given,
            fs=self.fs,
        )

    def _start_pipe(self) -> tuple[int, int]:
        """What init waits on: a plain pipe for `run`, exec.fifo in the state directory for `create`.

        The fifo is opened for reading and writing, so that it never looks closed to init, whoever comes and goes.
        """
        if self.request.immediate:
            return os.pipe()
        try:
            os.mkfifo(Entry.FIFO, 0o600, dir_fd=self.entry.dirfd)
        except OSError as error:
            raise self.entry.unwritable(error) from error
        return os.open(Entry.FIFO, os.O_RDWR | os.O_CLOEXEC, dir_fd=self.entry.dirfd), -1

    def _hook_state(self, status: str) -> bytes:
        """State for a hook that the child runs: it is pid 1 of its namespace, as the spec wants to see it there."""
        return state_json(
            self.request.container_id,
            self.spec["ociVersion"],
            status,
            os.getpid(),
            self.bundle,
            dict(self.spec.get("annotations") or {}),
        )

    def _after_clone(self, child: Child) -> None:
        reached("maps")
        plan = self.plan
        if plan.clone_flags & CLONE_NEWUSER:
            from sysvisor_runc.launch.userns import write_id_maps

            write_id_maps(child.pid, plan.uid_mappings, plan.gid_mappings)
        if not self.idmapped and any(tree.idmap for tree in plan.trees):
            fd = os.open(f"/proc/{child.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            try:
                trees.idmap_trees(plan.trees, self.opened, fd)
            finally:
                os.close(fd)
        reached("limits")
        limits.raise_rlimits(child.pid, plan.rlimits)
        limits.set_oom_score_adj(child.pid, plan.oom_score_adj, plan.oom_score_adj_min)
        if plan.io_priority is not None:
            limits.set_io_priority(child.pid, plan.io_priority)
        if plan.net_devices:
            self.undo.push("network devices", self.request.move_devices(plan.net_devices, child.pid))
        if self.plan.intel_rdt is not None:
            from sysvisor_runc.launch.rdt import join_rdt

            join_rdt(self.plan.intel_rdt, self.request.container_id, child.pid)

    def _drive(self, host: messages.Channel, child: Child, report: int, handed: int) -> Driver:
        driver = Driver(self.request, self.spec, self.plan, self.bundle, child=child, host=host, report=report)
        driver.handed = handed
        if self.fs is not None and self.traits is not None:
            driver.fs = self.fs.conversing(self.plan, child, self.spec, self.traits)

        def adopted() -> None:
            self.init_is(child.pid)
            self.stage_record(child)

        try:
            # The record is staged meanwhile: that costs as much as a dozen mounts.
            driver.drive(lambda: self.stage_record(child), adopted)
        except InitVanished as error:
            from sysvisor_runc.cgroup.oom import explain

            raise explain(self.manager, error) from None
        return driver

    # ---- what stays

    def init_is(self, pid: int) -> None:
        """Note which process is init, for `delete --force`, should we be killed from here on."""
        self.init_start = start_time(pid)
        notes.note(self.entry, "init", f"{pid} {self.init_start}")

    def stage_record(self, child: Child) -> None:
        request = self.request
        cgroup: CgroupRecord = {"driver": "cgroupfs", "paths": self.manager.paths, "leaf": ""}
        if self.unit is not None:
            cgroup = self.unit.record(self.manager.paths)
        if self.manager.delegated:
            from sysvisor_runc.cgroup.layout import LEAF_V1, LEAF_V2

            cgroup["leaf"] = LEAF_V2 if self.manager.v2 else LEAF_V1
        record = new_record(
            request.container_id,
            bundle=self.bundle,
            rootfs=self.plan.rootfs,
            spec=self.spec,
            flags=request.flags,
            syscont=self.traits is not None,
            cgroup=cgroup,
            subid=self.subid,
        )
        if request.again is not None:
            record["created"] = request.again.record["created"]
        record["initPid"] = child.pid
        record["initStart"] = self.init_start
        record["initHandle"] = handle_of(child.pidfd)
        record["status"] = "running" if request.immediate else "created"
        record["namespaces"] = {
            entry["type"]: f"/proc/{child.pid}/ns/{NAMESPACES[entry['type']][1]}"
            for entry in (self.spec.get("linux") or {}).get("namespaces") or ()
        }
        record["intelRdt"] = self.rdt
        if self.plan.overlay is not None:
            from sysvisor_runc.launch.overlay import record_overlay

            record_overlay(record, self.plan.overlay, self.opened[self.plan.child.rootfs_tree])
        if self.fs is not None:
            record["sysvisorFs"] = self.fs.record
        if self.traits is not None and self.traits.init_kind != "program":
            record["initKind"] = self.traits.init_kind
            if self.traits.stop_signal is not None:
                record["stopSignal"] = child.stop_signal = self.traits.stop_signal
        self.record = record
        self.entry.stage(record)

    def commit_record(self, child: Child) -> None:
        if self.fs is not None:
            self.fs.finish()
        reached("ready")
        request = self.request
        self.entry.commit()
        notes.forget(self.entry)
        reached("record")
        if request.pid_file:
            reached("pid-file")
            from sysvisor_runc.launch.pidfile import write_pid_file

            write_pid_file(request.pid_file, child.pid)
            self.undo.push("pid file", lambda: _unlink_quietly(request.pid_file))
        reached("pidfd-socket")
        if request.pidfd_socket:
            from sysvisor_runc.launch.handover import send_descriptor

            send_descriptor(request.pidfd_socket, child.pidfd, b"pidfd", "--pidfd-socket")


def _close_childs(wiring: Wiring, cgroup_fd: int | None) -> None:
    """Close what the child has by now."""
    ends = (wiring.report, wiring.start, wiring.leaf, wiring.late, wiring.fs_socket, wiring.handover)
    for fd in (*wiring.join, *ends, -1 if cgroup_fd is None else cgroup_fd):
        if fd >= 0:
            os.close(fd)
    wiring.channel.close()


def _unlink_quietly(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _remove_cgroup(manager: Manager, made: list[str]) -> None:
    """Whoever is still in there (a hook's child, a half-made init) dies with the launch that failed."""
    try:
        manager.kill_all(9)
    finally:
        manager.remove()


def _cgroup_view(manager: Manager, layout: Layout, *, namespace: bool) -> CgroupView:
    v1 = []
    processes = manager.exec_paths()
    for hierarchy in layout.v1:
        name = os.path.basename(hierarchy.mountpoint)
        path = processes.get(hierarchy.controllers[0], hierarchy.own if manager.incomplete else "")
        v1.append((name, hierarchy.controllers, path))
    own = layout.unified.own if layout.unified is not None and manager.incomplete else ""
    unified = manager.paths if manager.v2 else processes
    return CgroupView(v1, unified.get("unified", own), namespace=namespace)
