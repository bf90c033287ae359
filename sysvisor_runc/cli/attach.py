"""`attach`: use the terminal of a detached container, which its supervisor keeps. No asyncio.

The supervisor sends a duplicate of the terminal's master, for input and the window's size, and copies the output to us
as to its log: it can only be read once.
"""

from __future__ import annotations

import os
import select

from sysvisor_runc.cli.wait import ended_with
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.launch.tell import Dialogue
from sysvisor_runc.state.store import Store, check_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.launch.terminal import CallerTerminal

_SIGHUP, _SIGINT, _SIGQUIT, _SIGTERM, _SIGCONT, _SIGWINCH = 1, 2, 3, 15, 18, 28
_ENDING = (_SIGHUP, _SIGINT, _SIGQUIT, _SIGTERM)
_CHUNK = 1 << 16
# Ctrl-P Ctrl-Q leaves the container alone again, as with Docker.
DETACH = b"\x10\x11"


def run(options: Options) -> int:
    """Relay until the container ends (its exit code), or Ctrl-P Ctrl-Q is typed (0)."""
    from sysvisor_runc.kernel.signals import block_all, signalfd
    from sysvisor_runc.launch.terminal import CallerTerminal

    root, container_id = options.globals.root, check_id(options.args[0])
    Store(root).open(container_id).close()
    with Dialogue(root) as dialogue:
        dialogue.ask({"op": "attach", "id": container_id})
        if not dialogue.fds:
            raise SysvisorError("the supervisor has sent no terminal", hint="its limit on open files may be reached")
        dialogue.patient()
        block_all()
        signal_fd = signalfd([*_ENDING, _SIGCONT, _SIGWINCH])
        if os.isatty(0):
            with CallerTerminal() as terminal:
                detached = _Relay(dialogue, signal_fd, terminal).serve()
        else:
            detached = _Relay(dialogue, signal_fd, None).serve()
    return 0 if detached else ended_with(root, container_id)


class _Relay:
    def __init__(self, dialogue: Dialogue, signal_fd: int, terminal: CallerTerminal | None) -> None:
        self._link = dialogue.fileno()
        self._master = dialogue.fds[0]
        self._signals = signal_fd
        self._terminal = terminal
        self._held = b""
        self._first = dialogue.rest()
        self._poll = select.poll()
        for fd in (self._link, signal_fd, 0):
            self._poll.register(fd, select.POLLIN)

    def serve(self) -> bool:
        """Until the end; whether it is only ours."""
        self._resize()
        _write_all(1, self._first)
        while True:
            ready = [fd for fd, _ in self._poll.poll()]
            if self._signals in ready and self._signalled():
                return True
            if self._link in ready and not self._print():
                return False
            if 0 in ready and not self._type():
                return True

    def _print(self) -> bool:
        try:
            data = os.read(self._link, _CHUNK)
        except ConnectionResetError:
            data = b""
        _write_all(1, data)
        return bool(data)

    def _type(self) -> bool:
        """Pass on what was typed; False once that says to leave."""
        try:
            data = os.read(0, _CHUNK)
        except OSError:
            data = b""
        if not data:
            # The end of our input is not the container's; of a terminal it is a hang-up.
            self._poll.unregister(0)
            return self._terminal is None
        if self._terminal is None:
            _write_all(self._master, data)
            return True
        data, self._held = self._held + data, b""
        typed, found, _ = data.partition(DETACH)
        if not found and typed.endswith(DETACH[:1]):
            typed, self._held = typed[:-1], DETACH[:1]
        _write_all(self._master, typed)
        return not found

    def _signalled(self) -> bool:
        """Handle signals; whether one of them ends us."""
        data = os.read(self._signals, 128 * 16)
        numbers = {int.from_bytes(data[offset : offset + 4], "little") for offset in range(0, len(data), 128)}
        if self._terminal is not None and _SIGCONT in numbers:
            self._terminal.take()
        self._resize()
        return bool(numbers.intersection(_ENDING))

    def _resize(self) -> None:
        if self._terminal is not None:
            from sysvisor_runc.launch.terminal import copy_size

            copy_size(self._terminal.fd, self._master)


def _write_all(fd: int, data: bytes) -> None:
    """Write to a descriptor that may be non-blocking: the master is, being one open file with the supervisor's."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError:
            return  # hung up: its end is told elsewhere
