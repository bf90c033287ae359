"""The blocking driver of the launch conversation: carries out on the host what the child asks for until init waits.

It holds no policy: what may be said when is in `conversation`, what there is to do in the plan.
"""

from __future__ import annotations

import os

from sysvisor_runc.child import channel as messages
from sysvisor_runc.launch import trees
from sysvisor_runc.launch.conversation import LAUNCHED, Conversation, InitVanished
from sysvisor_runc.launch.interrupt import wait_readable
from sysvisor_runc.launch.ocistate import state_json
from sysvisor_runc.launch.steps import reached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_runc.launch.child import Child
    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.plan.plan import Plan
    from sysvisor_runc.spec.types import Spec


class Driver:
    """Attributes:

    console: the terminal's master once the child has sent it, -1 where it was handed on or is none.
    fs: does what the child asks of sysvisor-fs.
    handed: a socket that the terminal's master comes through; -1: it is taken out of the child.
    """

    __slots__ = (
        "_bundle", "_child", "_host", "_plan", "_report", "_request", "_spec",
        "console", "conversation", "fs", "handed",
    )  # fmt: skip

    def __init__(
        self,
        request: Request,
        spec: Spec,
        plan: Plan,
        bundle: str,
        *,
        child: Child,
        host: messages.Channel,
        report: int,
    ) -> None:
        self._request = request
        self._spec = spec
        self._plan = plan
        self._bundle = bundle
        self._child = child
        self._host = host
        self._report = report
        self.conversation = Conversation()
        self.console = -1
        self.handed = -1
        self.fs: Callable[[bytes], None] | None = None

    def drive(self, meanwhile: Callable[[], object], adopted: Callable[[], object]) -> None:
        """Let the child go and serve it until the last stage stands.

        `meanwhile` runs while the child furnishes its root, `adopted` when another process has become init.

        Raises:
            LaunchError: the container is not there.
        """
        try:
            self._host.send(messages.GO)
            meanwhile()
            self._serve(adopted)
        except BrokenPipeError:
            self._failed_early()

    def _serve(self, adopted: Callable[[], object]) -> None:
        while True:
            wait_readable(self._host.read_fd)
            message = self._host.receive()
            if message is None:
                self.conversation.ended(self._read_report())
                return
            self.conversation.received(*message)
            kind, payload = message
            if kind == messages.READY:
                continue
            if kind == messages.RUNTIME_HOOKS:
                self._runtime_hooks()
            elif kind == messages.CONSOLE:
                self._take_console(int(payload))
            elif kind == messages.INIT:
                # The process that made the container has forked the one that will be its init, and ends.
                self._child.replace(int.from_bytes(payload, "little"))
                adopted()
            elif kind == messages.LISTENER:
                from sysvisor_runc.launch.listener import hand_over

                hand_over(self._plan.seccomp, self._child, payload, self._state())
            elif kind in (messages.FS_TREES, messages.FS_REGISTER):
                if self.fs is not None:
                    self.fs(kind)
            elif kind == messages.IDMAP:
                trees.idmap_of_child(self._plan.inner_trees, self._child.pid, self._child.pidfd, payload)
            self._host.send(messages.GO_ON)

    def _failed_early(self) -> None:
        """The child is gone before it listened: whatever it said last is the reason."""
        message = self._host.receive()
        if message is not None:
            self.conversation.received(*message)
        self.conversation.ended(b"")
        if self.conversation.state != LAUNCHED:
            raise InitVanished

    def _read_report(self) -> bytes:
        os.set_blocking(self._report, False)
        try:
            return os.read(self._report, 8)
        except BlockingIOError:
            return b""

    def _runtime_hooks(self) -> None:
        reached("hooks")
        from sysvisor_runc.launch.hooks import run_hooks

        for kind in ("prestart", "createRuntime"):
            run_hooks(self._plan.hooks[kind], self._state())

    def _state(self) -> bytes:
        return state_json(
            self._request.container_id,
            self._spec["ociVersion"],
            "creating",
            self._child.pid,
            self._bundle,
            dict(self._spec.get("annotations") or {}),
        )

    def _take_console(self, number: int) -> None:
        reached("console")
        from sysvisor_runc.launch.master import take

        master = take(self._child, number, self.handed)
        if not self._request.console_socket:
            if not self._request.detached:
                from sysvisor_runc.launch.terminal import adapt

                adapt(master, self._spec["process"].get("consoleSize"))
            self.console = master
            return
        from sysvisor_runc.launch.handover import send_descriptor

        try:
            send_descriptor(self._request.console_socket, master, b"/dev/ptmx", "--console-socket")
        finally:
            os.close(master)
