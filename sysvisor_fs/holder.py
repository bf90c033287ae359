"""The process that keeps what a dead daemon must not take with it, and brings up the next one.

It owns the private mount namespace, and keeps connections, journal and triggers as descriptors under names. It watches
the daemon that serves by pidfd: one that dies without saying goodbye is started again, and one that has been busy with
a single request for too long is killed first. It knows nothing of FUSE, so there is next to nothing to go wrong in it.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time

from sysvisor_fs import packets
from sysvisor_fs.fuse.journal import read_busy
from sysvisor_fs.rundir import raise_descriptor_limit
from sysvisor_runc import log
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel import prctl
from sysvisor_runc.kernel.namespaces import CLONE_NEWNS, unshare

STUCK = float(os.environ.get("SYSVISOR_FS_STUCK_SECONDS") or 5)  # with one request: its thread is not coming back
JOURNAL = "journal"
_TICK = 1.0
_IGNORED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_CALL = 5.0  # seconds in which a daemon that was started calls
_EARLY = 5  # deaths in a row before one was ready, after which starting it again waits longer each time


class Daemon:
    """The daemon that serves now.

    Attributes:
        argv: how to start the next one; empty where somebody else does that.
        failures: how many in a row have died before they were ready.
    """

    def __init__(self, pid: int, argv: list[str], failures: int) -> None:
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.argv = argv
        self.failures = failures
        self.ready = False
        self.leaving = False
        self.killed = False
        self.began = time.monotonic_ns()  # what the journal says of an earlier moment is its predecessor's


class Holder:
    """The store and the watch."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._store: dict[str, list[int]] = {}
        self._clients: dict[int, socket.socket] = {}
        self._daemon: Daemon | None = None
        self._next_start = 0.0
        self._restart: Daemon | None = None
        self._starting: tuple[int, int] | None = None  # pid and pidfd of one that has not called yet
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._running = True

    def run(self) -> None:
        """Until told to quit."""
        while self._running:
            try:
                self._turn()
            except Exception as problem:  # noqa: BLE001 - it must not end: all connections would end with it
                log.error(f"holder: {type(problem).__name__}: {problem}")
                time.sleep(_TICK)

    def _turn(self) -> None:
        for fd, _ in self._poll.poll(_TICK * 1000):
            if fd == self._listener.fileno():
                self._accept()
            elif self._daemon is not None and fd == self._daemon.pidfd:
                self._died(self._daemon)
            elif self._starting is not None and fd == self._starting[1]:
                self._died_early(self._starting[0])
            elif (client := self._clients.get(fd)) is not None:
                self._converse(client)
        self._reap()
        self._start_again()
        self._look_after()

    # --- clients ----------------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        if packets.peer(client)[1] != os.geteuid():
            client.close()
            return
        self._clients[client.fileno()] = client
        self._poll.register(client, select.POLLIN)

    def _hang_up(self, client: socket.socket) -> None:
        self._poll.unregister(client)
        del self._clients[client.fileno()]
        client.close()

    def _converse(self, client: socket.socket) -> None:
        try:
            message, descriptors = packets.receive(client)
        except packets.Incomplete as problem:
            self._complain(client, str(problem))
            return
        except (EOFError, OSError, ValueError):
            self._hang_up(client)
            return
        try:
            self._obey(client, message, descriptors)
        except OSError as error:
            log.warning(f"holder: {message.get('op')}: {error}")
            self._hang_up(client)

    def _complain(self, client: socket.socket, problem: str) -> None:
        """What it asked for is not done; it stays connected, as a daemon calls but once."""
        log.error(f"holder: a packet is lost: {problem}")
        try:
            packets.send(client, {"ok": False, "error": problem})
        except OSError:
            self._hang_up(client)

    def _obey(self, client: socket.socket, message: packets.Message, descriptors: list[int]) -> None:
        name, operation = str(message.get("name", "")), message.get("op")
        if operation == "put":
            self._drop(name)
            self._store[name] = descriptors
            packets.send(client, {"ok": True})
        elif operation == "drop":
            self._drop(name)
            packets.send(client, {"ok": True})
        elif operation == "all":
            self._send_all(client)
        elif operation == "serve":
            self._serve(client, message)
        elif operation in ("ready", "bye") and self._daemon is not None:
            self._daemon.ready = True
            self._daemon.failures = 0
            self._daemon.leaving = operation == "bye"
            packets.send(client, {"ok": True})
        elif operation == "quit":
            self._end()
            packets.send(client, {"ok": True})

    def _end(self) -> None:
        """Nobody finds us any more, from before whoever has us end is told so."""
        self._running = False
        self._poll.unregister(self._listener)
        os.unlink(self._listener.getsockname())
        self._listener.close()

    def _drop(self, name: str) -> None:
        for fd in self._store.pop(name, []):
            os.close(fd)

    def _send_all(self, client: socket.socket) -> None:
        """Everything, in packets of as many descriptors as one can carry; then one without names."""
        names: list[str] = []
        descriptors: list[int] = []
        for name, fds in self._store.items():
            if len(descriptors) + len(fds) > packets.MOST_DESCRIPTORS:
                packets.send(client, {"names": list(names)}, descriptors)
                names, descriptors = [], []
            names.append(name)
            descriptors += fds
        if names:
            packets.send(client, {"names": list(names)}, descriptors)
        packets.send(client, {"names": []})

    def _serve(self, client: socket.socket, message: packets.Message) -> None:
        """The client is the daemon from now on, and may have our mount namespace."""
        pid, _ = packets.peer(client)
        argv = message.get("argv")
        failures = self._restart.failures if self._restart else 0
        if self._daemon is not None:
            self._poll.unregister(self._daemon.pidfd)
            os.close(self._daemon.pidfd)
            failures = self._daemon.failures
        self._restart = None
        self._expect(0)
        self._daemon = Daemon(pid, [str(word) for word in argv] if isinstance(argv, list) else [], failures)
        self._poll.register(self._daemon.pidfd, select.POLLIN)
        namespace = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        packets.send(client, {"ok": True}, [namespace])
        os.close(namespace)

    # --- the daemon -------------------------------------------------------------------------------------------------

    def _died(self, daemon: Daemon) -> None:
        self._poll.unregister(daemon.pidfd)
        os.close(daemon.pidfd)
        self._daemon = None
        if daemon.leaving or not daemon.argv:
            return
        if _was_killed(daemon.pid) and not daemon.killed:
            daemon.failures = 0  # by somebody else: no reason to have its readers wait
        self._restart, self._next_start = daemon, time.monotonic() + _delay(daemon.failures)

    def _died_early(self, pid: int) -> None:
        """One that was started has ended before it called."""
        self._expect(0)
        if self._restart is not None:
            if _was_killed(pid):
                self._restart.failures = 0
            self._next_start = time.monotonic() + _delay(self._restart.failures)

    def _expect(self, pid: int) -> None:
        """Look whether this process ends before it calls; 0: no longer."""
        if self._starting is not None:
            self._poll.unregister(self._starting[1])
            os.close(self._starting[1])
            self._starting = None
        if pid:
            self._starting = pid, os.pidfd_open(pid)
            self._poll.register(self._starting[1], select.POLLIN)

    def _start_again(self) -> None:
        if self._restart is None or time.monotonic() < self._next_start:
            return
        daemon = self._restart
        if daemon.failures >= _EARLY and not any(name.startswith("connection/") for name in self._store):
            log.error("holder: no daemon comes up, and there is nobody to serve: giving up")
            self._end()
            return
        self._next_start = time.monotonic() + _CALL  # should it die before it even calls us
        daemon.failures += 1
        log.warning("holder: the daemon has ended unexpectedly, starting another")
        try:
            pid = os.posix_spawn(
                daemon.argv[0], daemon.argv, dict(os.environ), setsid=True, setsigmask=[], setsigdef=_IGNORED
            )
            self._expect(pid)
        except OSError as error:
            log.error(f"holder: {daemon.argv[0]}: {error}")

    @staticmethod
    def _reap() -> None:
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    def _look_after(self) -> None:
        """Kill a daemon whose FUSE thread does not come back from a request."""
        journal = self._store.get(JOURNAL)
        if self._daemon is None or not journal or self._daemon.killed:
            return
        since, connection, unique = read_busy(journal[0])
        if since > self._daemon.began and (time.monotonic_ns() - since) / 1e9 > STUCK:
            log.error(f"holder: the daemon is stuck with request {unique:#x} of connection {connection:#x}: killing it")
            self._daemon.killed = True
            try:
                signal.pidfd_send_signal(self._daemon.pidfd, signal.SIGKILL)
            except ProcessLookupError:
                pass  # it has ended just now, as the next turn sees


def _delay(failures: int) -> float:
    """Seconds to wait after so many deaths in a row."""
    return 0.0 if failures < _EARLY else min(0.1 * 2 ** (failures - _EARLY), 5.0)


def _was_killed(pid: int) -> bool:
    """Whether a process has ended by SIGKILL; one that somebody else waits for may have."""
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def make_namespace(mountpoint: str) -> None:
    """A mount namespace of our own, which sees what the host mounts and shows nothing of ours, with a tmpfs for us."""
    unshare(CLONE_NEWNS)
    m.mount(None, "/", None, m.MS_REC | m.MS_SLAVE)
    os.makedirs(mountpoint, 0o755, exist_ok=True)
    flags = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC
    m.mount("sysvisor-fs", mountpoint, "tmpfs", flags, "mode=755,nr_inodes=0,size=1m")
    m.mount(None, mountpoint, None, m.MS_PRIVATE)


def spare_from_oom() -> None:
    """Whoever kills this process ends every container's files for good."""
    try:
        with open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("-1000")
    except OSError as error:
        log.info(f"holder: the OOM killer may choose it: {error}")  # CAP_SYS_RESOURCE is missing


def main(run_dir: str, mountpoint: str, ready: str) -> int:
    """Run as the holder; a byte in the descriptor `ready` says that it can be talked to."""
    for number in _IGNORED:  # it goes when it is told to, not with a session or a service
        signal.signal(number, signal.SIG_IGN)
    spare_from_oom()
    raise_descriptor_limit()
    prctl.set_name("sysvisor-fs-hld")
    make_namespace(mountpoint)
    path = f"{run_dir}/holder.sock"
    if os.path.lexists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    listener.bind(path)
    os.chmod(path, 0o600)
    listener.listen(8)
    os.write(int(ready), b"+")
    os.close(int(ready))
    Holder(listener).run()
    return 0
