"""Times whole commands: posix_spawn to wait4, in a small forked process that may live in a mount namespace of its own.

crun refuses hybrid cgroup layouts, so that its spawner hides /sys/fs/cgroup/unified from it; nobody else notices.
"""

import ctypes
import json
import os
import socket
import sys
import time

CLONE_NEWNS = 0x00020000
MS_REC_PRIVATE = 16384 | 1 << 18
MNT_DETACH = 2
UNIFIED = "/sys/fs/cgroup/unified"


class Timing:
    """One command: `ms` wall-clock, `code` its exit code (negative: signal)."""

    def __init__(self, ms: float, code: int) -> None:
        self.ms = ms
        self.code = code


class Spawner:
    """A process that starts commands and says how long they took; `hide_unified` gives it plain cgroup v1."""

    def __init__(self, hide_unified: bool = False) -> None:
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _serve(theirs, hide_unified)
        theirs.close()
        self._stream = ours.makefile("rw")
        ours.close()

    def run(self, command: list[str], output: str = os.devnull) -> Timing:
        """Run a command to its end, standard output and error into the file `output`."""
        self._stream.write(json.dumps([command, output]) + "\n")
        self._stream.flush()
        ms, code = json.loads(self._stream.readline())
        return Timing(ms, code)

    def close(self) -> None:
        # Not by end-of-file: a spawner forked later holds a copy of this socket.
        self._stream.write("null\n")
        self._stream.flush()
        self._stream.close()
        os.waitpid(self.pid, 0)


def _serve(connection: socket.socket, hide_unified: bool) -> None:
    """The spawner's own process: one request per line, until there is none more."""
    try:
        if hide_unified:
            _hide_unified()
        with connection, connection.makefile("rw") as stream:
            for line in stream:
                if (request := json.loads(line)) is None:
                    break
                command, output = request
                stream.write(json.dumps(_timed(command, output)) + "\n")
                stream.flush()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _timed(command: list[str], output: str) -> tuple[float, int]:
    null = os.open(os.devnull, os.O_RDONLY)
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    actions = [(os.POSIX_SPAWN_DUP2, null, 0), (os.POSIX_SPAWN_DUP2, out, 1), (os.POSIX_SPAWN_DUP2, out, 2)]
    began = time.perf_counter_ns()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=actions)
    _, status, _ = os.wait4(pid, 0)
    took = time.perf_counter_ns() - began
    os.close(null)
    os.close(out)
    return took / 1e6, os.waitstatus_to_exitcode(status)


def _hide_unified() -> None:
    """Leave the caller's mount namespace and unmount the empty cgroup2 of a hybrid layout there."""
    libc = ctypes.CDLL(None, use_errno=True)
    calls = (
        libc.unshare(CLONE_NEWNS),
        libc.mount(b"none", b"/", None, MS_REC_PRIVATE, None),
        libc.umount2(UNIFIED.encode(), MNT_DETACH),
    )
    if any(calls):
        raise OSError(ctypes.get_errno(), "cannot hide the unified hierarchy", UNIFIED)
