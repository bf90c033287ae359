"""sysvisor-fs's part of a launch: announce the container, pass its mounts to the child, register it, and take it back.

Loaded only where it is wanted. Who makes the calls is in `fslink`; what needs descriptors goes over the daemon's
control socket, and where a daemon has none (one of another make) its files are taken by their paths.
"""

from __future__ import annotations

import os
import time

from sysvisor_runc import log
from sysvisor_runc.child import channel as messages
from sysvisor_runc.child import late
from sysvisor_runc.contract import names
from sysvisor_runc.errors import LaunchError
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.launch import fscontrol, fsend, notes
from sysvisor_runc.launch.fslink import open_link
from sysvisor_runc.launch.steps import reached
from sysvisor_runc.plan.served import FIRST_TREE

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket
    from collections.abc import Callable, Sequence

    from sysvisor_runc.launch.child import Child
    from sysvisor_runc.launch.fscontrol import Connection
    from sysvisor_runc.launch.fslink import Link
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.launch.undo import UndoStack
    from sysvisor_runc.plan.plan import Plan
    from sysvisor_runc.spec.types import IDMapping, Spec
    from sysvisor_runc.state.record import FsRecord
    from sysvisor_runc.state.store import Entry
    from sysvisor_runc.syscont.traits import Traits

# A gRPC target in place of our own daemon's socket: a daemon of another make.
ADDRESS_VARIABLE = "SYSVISOR_FS_ADDRESS"
MOUNTPOINT_VARIABLE = "SYSVISOR_FS_MOUNTPOINT"


class FsLaunch:
    """The daemon's side of one launch, from the moment that it is asked to have a tree.

    Attributes:
        mountpoint: where trees are by the contract's word; nominal until the first call is answered.
    """

    def __init__(self, request: Request, entry: Entry, spec: Spec, undo: UndoStack) -> None:
        """Find or start the daemon, and have somebody begin with the calls.

        Raises:
            LaunchError: there is no daemon, and none can be started.
        """
        self._id = request.container_id
        self._control: Connection | None = None
        self._children: _socket.socket | None = None
        self._era = False
        self._updating = self._closed = False
        self.mountpoint = os.environ.get(MOUNTPOINT_VARIABLE) or names.MOUNTPOINT
        self._target = os.environ.get(ADDRESS_VARIABLE, "")
        self._root, self._serve = request.root, request.serve_fs_agent
        reached("fs-daemon")
        if not self._target:
            directory = fscontrol.run_dir()
            self._control = fscontrol.connect(directory) or _start(directory, request.fs_program)
            self._target = f"unix:{directory}/{names.GRPC_SOCKET}"
        self._own = self._control is not None
        self._link: Link = open_link(request.root, request.serve_fs_agent, self._control)
        undo.push("link to sysvisor-fs", self.close)
        notes.note(entry, "fs", self._target)
        undo.push("registration with sysvisor-fs", self._unregister)
        # Its answer is waited for when the mounts are needed.
        self._link.send(self._request("prepare", netns=_netns(spec)))
        reached("fs-prepare")

    @property
    def record(self) -> FsRecord:
        """What to store with the container."""
        return {"target": self._target, "runDir": fscontrol.run_dir() if self._own else ""}

    def child_end(self) -> int:
        """A socket for the child, which gets the mounts there."""
        self._children, theirs = late.pair()
        return theirs

    def descriptors(self) -> list[int]:
        """What the child must not keep."""
        ours = [one.fileno() for one in (self._control, self._children) if one is not None]
        return ours + self._link.descriptors()

    def conversing(self, plan: Plan, child: Child, spec: Spec, traits: Traits) -> Callable[[bytes], None]:
        """What does as the child says."""

        def on_message(kind: bytes) -> None:
            if kind == messages.FS_TREES:
                self._send_trees(plan, child.pid, spec, traits)
            else:
                self.register(plan, child.pid, spec, traits)

        return on_message

    def _send_trees(self, plan: Plan, pid: int, spec: Spec, traits: Traits) -> None:
        """Wait until there is a tree, and send the child what it shows of it.

        Raises:
            LaunchError: the daemon refuses, or does not answer.
        """
        self._wait_prepared()
        if self._era:
            # Before the mounts: in 2019 nobody was told beforehand.
            self._link.call(self._registration(plan, pid, spec, traits))
        trees = self._trees(plan.fs_paths)
        assert self._children is not None
        try:
            late.send(self._children, [], -1, trees)
        finally:
            self._children = None
            for fd in trees.values():
                os.close(fd)

    def _wait_prepared(self) -> None:
        answer = self._link.receive()
        reached("fs-trees")
        self._era = answer.get("era") is True
        if MOUNTPOINT_VARIABLE not in os.environ:
            self.mountpoint = str(answer["mountpoint"])

    def trees(self, plan: Plan) -> dict[int, int]:
        """What the daemon serves, for somebody else to attach and close: detached mounts by their numbers in the plan.

        Raises:
            LaunchError: the daemon refuses, does not answer, or wants to know init first.
        """
        self._wait_prepared()
        if self._era:
            raise fscontrol.failure("this daemon, which is of 2019, serves no container that is restored")
        return self._trees(plan.fs_paths)

    def register(self, plan: Plan, pid: int, spec: Spec, traits: Traits) -> None:
        """Say who the container is, and when it was made.

        Raises:
            LaunchError: the daemon refuses, or does not answer.
        """
        reached("fs-register")
        if not self._era:
            self._link.send(self._registration(plan, pid, spec, traits))
        self._link.send(self._request("update", created=time.time_ns()))
        self._updating = True
        if not self._era:
            self._link.receive()

    def finish(self) -> None:
        """See that all calls are answered.

        Raises:
            LaunchError: the last one has failed.
        """
        if self._updating:
            self._link.receive()
        reached("fs-update")

    def keep(self) -> None:
        """The launch has succeeded: the registration ends with the container."""
        try:
            if self._link.told:
                self._link.call(self._request("keep"))
        except LaunchError as error:
            log.debug(error.message)  # nobody is left who would undo anything
        self.close()

    def close(self) -> None:
        """Let go of daemon and calls."""
        for one in (self._control, self._children):
            if one is not None:
                one.close()
        self._control = self._children = None
        self._link.close()
        self._closed = True

    def _request(self, call: str, **fields: object) -> dict[str, object]:
        return {"call": call, "target": self._target, "id": self._id, **fields}

    def _registration(self, plan: Plan, pid: int, spec: Spec, traits: Traits) -> dict[str, object]:
        return self._request(
            "register",
            initPid=pid,
            uid=_mapped(plan.uid_mappings, traits.ids, 0),
            gid=_mapped(plan.gid_mappings, traits.ids, 1),
            hostname=spec.get("hostname") or "",
            readonlyPaths=list(traits.readonly_paths),
            maskedPaths=list(traits.masked_paths),
            netns=_netns(spec),
        )

    def _trees(self, paths: Sequence[str]) -> dict[int, int]:
        """Descriptors of the paths that the daemon serves, by the number that the plan gave them."""
        if self._control is None:
            return _open_by_path(self.mountpoint if self._era else f"{self.mountpoint}/{self._id}", paths)
        answer, fds = self._control.ask({"op": "trees", "id": self._id, "paths": list(paths)})
        served = answer.get("served")
        assert isinstance(served, list)
        return {FIRST_TREE + int(index): fd for index, fd in zip(served, fds, strict=True)}

    def _unregister(self) -> None:
        if not self._closed:
            self._link.drain()
        if self._link.refusal == "ALREADY_EXISTS":
            return  # another container has that id, in another state root
        if not self._closed and not self._link.gone:
            try:
                self._link.call(self._request("unregister"))
                return
            except LaunchError:
                if not self._link.gone:
                    if self._link.refusal == "NOT_FOUND":
                        return  # it has seen the end of init
                    raise
        if self._own and self._link.gone:
            return  # once that daemon answers again, it sees that we, and init, have gone
        # Whoever made the calls was killed, or has left; with nobody to tell the daemon the id would be taken for ever.
        fsend.unregister(self.record, self._id, self._root, self._serve)


def _start(directory: str, program: str) -> Connection:
    from sysvisor_runc.launch.fsdaemon import start

    return start(directory, program)


def _open_by_path(tree: str, paths: Sequence[str]) -> dict[int, int]:
    """The files of a daemon that has no control socket: mounted where everybody can see them."""
    opened: dict[int, int] = {}
    for index, path in enumerate(paths):
        try:
            fd = m.open_tree(m.AT_FDCWD, f"{tree}/{path}", m.OPEN_TREE_CLONE | m.OPEN_TREE_CLOEXEC | m.AT_RECURSIVE)
            m.mount_setattr(fd, "", m.AT_EMPTY_PATH | m.AT_RECURSIVE, propagation=m.MS_PRIVATE)
        except OSError as error:
            log.debug(f"not served by sysvisor-fs: {error}")
            continue
        opened[FIRST_TREE + index] = fd
    return opened


def _netns(spec: Spec) -> str:
    """The path of a network namespace that is another container's, too."""
    namespaces = (spec.get("linux") or {}).get("namespaces") or ()
    return next((n.get("path") or "" for n in namespaces if n["type"] == "network"), "")


def _mapped(mappings: Sequence[IDMapping], ids: tuple[int, int, int] | None, which: int) -> list[int]:
    """First host id and size of what the container's 0 is mapped by."""
    for mapping in mappings:
        if mapping["containerID"] == 0:
            return [mapping["hostID"], mapping["size"]]
    return [ids[which], ids[2]] if ids is not None else [0, 0]
