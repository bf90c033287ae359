"""Run one OCI hook: a program with the container's state on its standard input and perhaps a deadline.

Used by the child for createContainer, by the launch for the others. May import kernel only; loads
nothing when it runs, since the child's imports are sealed by then.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal has no stub
import os
import select
import time

from sysvisor_runc.kernel.namespaces import clone3
from sysvisor_runc.kernel.prctl import PR_SET_PDEATHSIG, prctl
from sysvisor_runc.kernel.signals import reset_signals
from sysvisor_runc.kernel.syscall import syscall

# What a hook prints is kept up to this many bytes for the message; the rest is read and dropped, so that a hook with
# endless output neither blocks nor fills our memory.
_OUTPUT_MAX = 4096
_SIGKILL = 9


class Hook:
    """One entry of `hooks.<kind>`: path, args (argv, the program's name first), env, timeout in seconds or None."""

    __slots__ = ("args", "env", "index", "kind", "path", "timeout")

    def __init__(
        self, kind: str, index: int, path: str, args: list[str], env: list[str] | None, timeout: int | None
    ) -> None:
        self.kind = kind
        self.index = index
        self.path = path
        self.args = args or [path]
        self.env = env
        self.timeout = timeout

    def describe(self) -> str:
        return f"{self.kind} hook #{self.index}: {' '.join(self.args)}"


class HookError(Exception):
    """A hook failed; the text is the whole message."""


def run_hook(hook: Hook, state: bytes, *, inherited: list[str] | None = None, abort: int = -1) -> None:
    """Run `hook` with `state` (JSON) on its stdin.

    One without `env` gets `inherited`, or where that is None the environment of this process, as with runc.

    Raises:
        HookError: it could not be started, exited with a code other than 0, died by a signal, or overran its timeout.
    """
    stdin, output = os.pipe(), os.pipe()
    pid, pidfd = clone3(0)
    if pid == 0:
        _exec(hook, stdin[0], output[1], hook.env if hook.env is not None else inherited)
    os.close(stdin[0])
    os.close(output[1])
    await_hook(hook, pid, pidfd, stdin[1], output[0], state, abort=abort)


def await_hook(hook: Hook, pid: int, pidfd: int, stdin: int, output: int, state: bytes, *, abort: int = -1) -> None:
    """Feed `state` to the hook that runs as our child `pid`, and wait for its end; closes the three descriptors.

    If `abort` can be read first, the hook is killed and has failed.

    Raises:
        HookError: it exited with a code other than 0, died by a signal, or overran its timeout.
    """
    try:
        said = _converse(hook, pidfd, stdin, output, state, abort)
    except BaseException:  # its deadline, or a signal that ends us: nobody would wait for it any more
        syscall("pidfd_send_signal", pidfd, _SIGKILL, 0, 0)
        raise
    finally:
        os.close(output)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
    code = os.waitstatus_to_exitcode(status)
    if code:
        why = f"exit status {code}" if code > 0 else f"signal: {(_signal.strsignal(-code) or str(-code)).lower()}"
        raise HookError(f"error running {hook.kind} hook #{hook.index}: {why}{': ' if said else ''}{said}")


def _exec(hook: Hook, stdin: int, output: int, environment: list[str] | None) -> None:
    try:
        reset_signals()
        # Not to be left behind by a command that is killed.
        prctl(PR_SET_PDEATHSIG, _SIGKILL)
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        syscall("close_range", 3, 0xFFFFFFFF, 0)
        if environment is None:
            os.execve(hook.path, hook.args, os.environ)
        os.execve(hook.path, hook.args, dict(entry.split("=", 1) for entry in environment if "=" in entry))
    except OSError as error:
        os.write(2, f"{hook.path}: {(error.strerror or '').lower()}".encode())
    finally:
        os._exit(1)


def _converse(hook: Hook, pidfd: int, stdin: int, output: int, state: bytes, abort: int) -> str:
    """Feed the state, collect the output, wait for the end or the deadline."""
    deadline = None if hook.timeout is None else time.monotonic() + hook.timeout
    said = b""
    os.set_blocking(stdin, False)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(output, select.POLLIN)
    poll.register(stdin, select.POLLOUT)
    if abort >= 0:
        poll.register(abort, select.POLLIN)
    try:
        while True:
            left = None if deadline is None else max(0, (deadline - time.monotonic()) * 1000)
            events = poll.poll(left)
            if not events:
                raise HookError(
                    f"error running {hook.kind} hook #{hook.index}: hook ran past specified timeout of {hook.timeout}s"
                )
            ready = dict(events)
            if abort in ready and pidfd not in ready:
                raise HookError(f"error running {hook.kind} hook #{hook.index}: interrupted")
            if output in ready:
                part = os.read(output, 65536)
                said = (said + part)[:_OUTPUT_MAX]
                if not part:
                    poll.unregister(output)
            if stdin >= 0 and stdin in ready:
                state = _feed(stdin, state)
                if not state:
                    poll.unregister(stdin)
                    os.close(stdin)
                    stdin = -1
            if pidfd in ready:
                return said.decode("utf-8", "replace").strip()
    finally:
        if stdin >= 0:
            os.close(stdin)


def _feed(stdin: int, state: bytes) -> bytes:
    """Write what fits; a hook that does not read its stdin is none of our business (EPIPE)."""
    try:
        return state[os.write(stdin, state) :]
    except BlockingIOError:
        return state
    except BrokenPipeError:
        return b""
