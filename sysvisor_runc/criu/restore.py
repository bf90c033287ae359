"""Bring a container back from the images that a checkpoint has written: cgroups and mounts by us, the rest by criu."""

from __future__ import annotations

import os

from sysvisor_runc.criu.access import Readable
from sysvisor_runc.criu.checkpoint import DESCRIPTORS, IDS, SERVED
from sysvisor_runc.criu.hierarchy import KeptOptions
from sysvisor_runc.criu.loopback import bring_up_loopback
from sysvisor_runc.criu.options import CriuOptions, explain, open_directory
from sysvisor_runc.criu.place import Shelf, enter_own_mount_namespace, make_mount_points, widen
from sysvisor_runc.criu.rpc import criu_pb2 as messages
from sysvisor_runc.criu.session import FIRST_FD, CriuError, Session, version
from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.jsonlight import loads
from sysvisor_runc.kernel.namespaces import (
    CLONE_NEWCGROUP,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    unshare,
)
from sysvisor_runc.launch import trees
from sysvisor_runc.launch.child import Child
from sysvisor_runc.launch.create import Launch
from sysvisor_runc.launch.ids import on_host
from sysvisor_runc.launch.interrupt import Interrupted
from sysvisor_runc.launch.stdio import give_stdio

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.launch.undo import UndoStack
    from sysvisor_runc.state.record import Record, SubidRecord
    from sysvisor_runc.state.store import Entry

LOG = "restore.log"
_LSM_SINCE = 31600
_KEYS = {CLONE_NEWNET: "extRootNetNS", CLONE_NEWPID: "extRootPidNS"}


class RestoreOptions(CriuOptions):
    """What `restore` asks for beside that."""

    def __init__(self, program: str, images: str, work: str) -> None:
        super().__init__(program, images, work)
        self.lsm_profile = ""
        self.lsm_mount_context = ""


class Restored:
    """A container that runs again; `console` is its terminal's master, -1 where there is none or it was sent away."""

    def __init__(self, entry: Entry, record: Record, child: Child, console: int) -> None:
        self.entry = entry
        self.record = record
        self.child = child
        self.console = console


def restore(request: Request, undo: UndoStack, options: RestoreOptions) -> Restored:
    """Restore the container that `request` describes; what it took is on `undo`.

    Raises:
        CriuError: criu refuses.
        SysvisorError: something else failed. Nothing is left behind once `undo` is unwound.
    """
    number = version(options.program)
    if (options.lsm_profile or options.lsm_mount_context) and number < _LSM_SINCE:
        flag = "lsm-profile" if options.lsm_profile else "lsm-mount-context"
        raise CriuError(f"--{flag} requires at least CRIU 3.16")
    enter_own_mount_namespace()
    images = open_directory(options.images, make=False)
    work = open_directory(options.work, make=True)
    try:
        request.subid = _ids(images)
        request.fs = _is_served(request, images)
        launch = Launch(request, undo)
        launch.prepare()
        below = widen(launch.plan.trees)
        launch.acquire()
        return _Restore(launch, options, images, work).run(below)
    finally:
        os.close(images)
        os.close(work)


class _Restore:
    """One restore: the values that its steps hand to each other."""

    def __init__(self, launch: Launch, options: RestoreOptions, images: int, work: int) -> None:
        self.launch = launch
        self.options = options
        self.images = images
        self.work = work
        self.child: Child | None = None
        self.console = -1

    def run(self, below: list[str]) -> Restored:
        """`below`: where on its mount each tree lies."""
        launch = self.launch
        plan = launch.plan
        self._idmap()
        try:
            real = make_mount_points(plan)
        except OSError as error:
            raise LaunchError(f"make mount points in {plan.rootfs!r}: {reason(error)}") from error
        if plan.child.console is None:
            give_stdio(on_host(plan.uid_mappings, plan.child.process.identity.uid))
        served = launch.fs.trees(plan) if launch.fs is not None else {}
        shelf = Shelf(plan, launch.opened, served, real, below)
        try:
            shelf.furnish()
        except OSError as error:
            raise LaunchError(f"lay out the mounts for criu in {shelf.path!r}: {error}") from error
        trees.close_trees(launch.opened)
        trees.close_trees(served)
        try:
            request = messages.Request(type=messages.RESTORE, opts=self._message(shelf))
            if plan.clone_flags & CLONE_NEWUSER:
                with Readable(self.images, on_host(plan.uid_mappings, 0)):
                    self._call(request)
            else:
                self._call(request)
        finally:
            shelf.remove()
        if self.child is None:
            raise explain(CriuError("criu has restored nothing"), self.options.work, LOG)
        return Restored(launch.entry, launch.record, self.child, self.console)

    def _call(self, request: messages.Request) -> None:
        manager = self.launch.manager
        join = manager.join_fds()
        inherited = self._namespaces()

        # Where criu ignores cgroups what it restores has the cgroup namespace that it has itself.
        alone = self.options.cgroups == "ignore" and self.launch.plan.child.late_namespaces & CLONE_NEWCGROUP

        def join_cgroups() -> None:
            for fd in join:
                os.write(fd, b"0")
            if alone:
                unshare(CLONE_NEWCGROUP)

        session = Session(
            self.options.program,
            cgroup_fd=manager.clone_into_fd(manager.exec_paths()),
            prepare=join_cgroups,
            descriptors=inherited,
        )
        for fd in (*join, *inherited):
            os.close(fd)
        try:
            with KeptOptions():
                try:
                    session.call(request, self._notified, self._is_alive)
                except Interrupted:
                    session.close()
                    raise
        except CriuError as error:
            session.close()
            raise explain(error, self.options.work, LOG) from error
        session.close()
        given = dict(self.launch.plan.join).get(CLONE_NEWNET)
        if given is not None:
            from sysvisor_runc.criu.network import unlock

            unlock(given)

    def _idmap(self) -> None:
        launch = self.launch
        plan = launch.plan
        if launch.idmapped or not plan.clone_flags & CLONE_NEWUSER or not any(tree.idmap for tree in plan.trees):
            return
        from sysvisor_runc.launch.userns import user_namespace

        fd = user_namespace(plan.uid_mappings, plan.gid_mappings)
        try:
            trees.idmap_trees(plan.trees, launch.opened, fd)
        finally:
            os.close(fd)

    def _namespaces(self) -> list[int]:
        """Descriptors of the namespaces that the container had by path."""
        return [os.open(path, os.O_RDONLY | os.O_CLOEXEC) for flag, path in self.launch.plan.join if flag in _KEYS]

    def _message(self, shelf: Shelf) -> messages.Options:
        launch, options = self.launch, self.options
        message = options.message(launch.spec, self.images, LOG)
        message.work_dir_fd = self.work
        message.root = shelf.root
        message.rst_sibling = True
        message.evasive_devices = True
        if options.lsm_profile:
            message.lsm_profile = options.lsm_profile
        if options.lsm_mount_context:
            message.lsm_mount_context = options.lsm_mount_context
        for name, path in shelf.sources.items():
            message.ext_mnt.add(key=name, val=path)
        for controller, path in launch.manager.exec_paths().items():
            message.cg_root.add(ctrl=controller if controller != "unified" else "", path=self._below(controller, path))
        for number, name in enumerate(self._descriptors()):
            if name.startswith(("pipe:", "file[")):
                message.inherit_fd.add(key=name, fd=number)
        external = [(flag, path) for flag, path in launch.plan.join if flag in _KEYS]
        for number, (flag, _) in enumerate(external, FIRST_FD):
            message.inherit_fd.add(key=_KEYS[flag], fd=number)
        for flag, path in launch.plan.join:
            if flag not in _KEYS:
                message.join_ns.add(ns=_criu_name(flag), ns_file=path)
        return message

    def _below(self, controller: str, path: str) -> str:
        """The path of a cgroup in its hierarchy."""
        top = self.launch.layout.by_controller()[controller].mountpoint
        return path[len(top) :] or "/"

    def _descriptors(self) -> list[str]:
        found = _read_json(DESCRIPTORS, self.images)
        if not isinstance(found, list):
            raise CriuError(f"no {DESCRIPTORS} in {self.options.images!r}", hint="--image-path must name a checkpoint")
        return [name for name in found if isinstance(name, str)]

    def _notified(self, step: str, pid: int, fds: list[int]) -> None:
        if step == "setup-namespaces":
            if self.launch.fs is not None and self.launch.traits is not None:
                # Now, since what is mounted below its files comes next.
                self.launch.fs.register(self.launch.plan, pid, self.launch.spec, self.launch.traits)
            if self.launch.plan.clone_flags & CLONE_NEWNET:
                bring_up_loopback(pid)
            self._runtime_hooks(pid)
        elif step == "orphan-pts-master" and fds:
            self._take_console(fds[0])
        elif step == "post-restore":
            self._restored(pid)

    def _restored(self, pid: int) -> None:
        """All of it is there, and stands still yet: from here on it is a container of ours."""
        launch = self.launch
        self.child = child = Child(pid, os.pidfd_open(pid))
        launch.undo.push("init", child.kill)
        launch.init_is(pid)
        launch.stage_record(child)
        launch.commit_record(child)
        if launch.fs is not None:
            launch.fs.keep()

    def _is_alive(self) -> bool:
        """Whether the restored init, once there is one, has a program still."""
        if self.child is None:
            return True
        try:
            return bool(os.readlink(f"/proc/{self.child.pid}/exe"))
        except OSError:
            return False

    def _runtime_hooks(self, pid: int) -> None:
        launch = self.launch
        found = [*launch.plan.hooks["prestart"], *launch.plan.hooks["createRuntime"]]
        if not found:
            return
        from sysvisor_runc.launch.hooks import run_hooks
        from sysvisor_runc.launch.ocistate import state_json

        annotations = dict(launch.spec.get("annotations") or {})
        name, version_ = launch.request.container_id, launch.spec["ociVersion"]
        run_hooks(found, state_json(name, version_, "creating", pid, launch.bundle, annotations))

    def _take_console(self, master: int) -> None:
        request = self.launch.request
        if request.console_socket:
            from sysvisor_runc.launch.handover import send_descriptor

            send_descriptor(request.console_socket, master, b"/dev/ptmx", "--console-socket")
        else:
            self.console = os.dup(master)


def _ids(images: int) -> SubidRecord | None:
    """The ids that the container had; None where it had none of its own."""
    found = _read_json(IDS, images)
    if not isinstance(found, dict):
        return None
    numbers = [found.get(key) for key in ("uid", "gid", "size")]
    if not all(isinstance(number, int) and number > 0 for number in numbers):
        raise CriuError(f"{IDS} of the checkpoint holds no range of ids")
    return {"uid": found["uid"], "gid": found["gid"], "size": found["size"]}


def _is_served(request: Request, images: int) -> bool:
    """Whether sysvisor-fs is needed, as it was before."""
    served = _read_json(SERVED, images) is True
    if served and not request.fs:
        raise CriuError(
            "the container was served by sysvisor-fs, and cannot be restored without",
            hint="leave out --no-sysvisor-fs; images of a container that was run with it need no daemon",
        )
    return served


def _read_json(name: str, images: int) -> object:
    """The value in a file beside the images; None where there is no such file."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=images)
    except FileNotFoundError:
        return None
    try:
        return loads(os.read(fd, 1 << 16))
    except ValueError as error:
        raise CriuError(f"{name} of the checkpoint is not readable: {error}") from error
    finally:
        os.close(fd)


def _criu_name(flag: int) -> str:
    from sysvisor_runc.kernel import namespaces as ns

    names = {ns.CLONE_NEWUTS: "uts", ns.CLONE_NEWIPC: "ipc", CLONE_NEWNS: "mnt", CLONE_NEWUSER: "user"}
    if flag not in names:
        raise CriuError("criu cannot join a cgroup or time namespace", hint="leave its path out of linux.namespaces")
    return names[flag]
