"""A container's way to the service manager that started us: its sd_notify(3) messages, as far as they are its own.

runc's arrangement: ROOT/ID/notify/notify.sock is bound read-only to /run/notify in the container, whose $NOTIFY_SOCKET
names it, and `run` and `start` listen there. The manager hears us, not the container: it believes root, and a container
that could send MAINPID= would have any process of the host killed when its unit is stopped. Descriptors never pass
(FDSTORE=, BARRIER=): the kernel closes them as the message is read.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # the C half of signal has no stub
import _socket
import os
import select
import time

from sysvisor_runc import log
from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.kernel import sd_notify
from sysvisor_runc.launch import foreground
from sysvisor_runc.launch.ids import on_host
from sysvisor_runc.launch.interrupt import check, descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.launch.child import Child
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.state.record import Record
    from sysvisor_runc.state.store import Entry

DIRECTORY = "notify"
SOCKET = "notify.sock"
INSIDE = "/run/notify"
_OPTIONS = ["bind", "nosuid", "noexec", "nodev", "ro"]
# What a container may say of itself. Not MAINPID, MAINPIDFDID, NOTIFYACCESS, FDSTORE…, BARRIER: see above. Nor what
# takes the administrator's own limits away from him: EXTEND_TIMEOUT_USEC (a stop, and with it a shutdown of the host,
# could be put off for ever), WATCHDOG_USEC.
_PASSED = frozenset((
    b"READY", b"RELOADING", b"MONOTONIC_USEC", b"STOPPING", b"STATUS", b"ERRNO", b"BUSERROR", b"VARLINKERROR",
    b"EXIT_STATUS",
))  # fmt: skip
# That it is alive, but not WATCHDOG=trigger, which has the manager kill the service.
_ALIVE = b"WATCHDOG=1"
# More messages in a second than this wait in the container's own queue: a flood stays there.
_PER_SECOND = 64
_SO_PASSCRED, _SCM_CREDENTIALS = 16, 2
_CREDENTIALS_SPACE = _socket.CMSG_SPACE(12)
# How long, in seconds, the descriptors of a message may take to be closed.
_CLOSING = 0.1
# How long the manager may take to work our messages off before we leave.
_PATIENCE = 30_000


def make_directory(entry: Entry) -> None:
    """Make the directory that the container sees; `start` or `run` puts the socket into it.

    Raises:
        StateError: it cannot be made.
    """
    try:
        os.mkdir(DIRECTORY, 0o755, dir_fd=entry.dirfd)
        os.chmod(DIRECTORY, 0o755, dir_fd=entry.dirfd)  # whatever the umask
    except OSError as error:
        raise entry.unwritable(error) from error


def with_mount(spec: Spec, entry: Entry) -> Spec:
    """The spec with the directory bound into the container."""
    source = f"{entry.path}/{DIRECTORY}"
    return {**spec, "mounts": [*spec.get("mounts", ()), {"destination": INSIDE, "source": source, "options": _OPTIONS}]}


class Proxy:
    """Listens for a container's messages and passes them on to the manager at `address`."""

    __slots__ = ("_count", "_manager", "_second", "_socket", "_speakers", "ready")

    def __init__(self, link: _socket.socket, address: str, speakers: frozenset[int]) -> None:
        self._socket = link
        self._speakers = speakers
        self._manager = sd_notify.NotifySocket(address)
        self._second = 0.0
        self._count = 0
        self.ready = False

    def fileno(self) -> int:
        """Readable when the container has said something."""
        return self._socket.fileno()

    def pass_on(self, main_pid: int = 0) -> float:
        """Pass on what is there; for how many seconds not to look again. READY=1 names `main_pid`, and sets `ready`."""
        while True:
            pause = self._exhausted()
            if pause:
                return pause
            try:
                data, control, flags = self._receive()
            except BlockingIOError:
                return 0
            self._count += 1
            heard = not flags & _socket.MSG_TRUNC and _sender(control) in self._speakers
            lines = own_lines(data) if heard else []
            if b"READY=1" in lines:
                self.ready = True
                if main_pid:
                    lines.insert(0, sd_notify.text(MAINPID=main_pid))
            if lines:
                self._tell(b"\n".join(lines))

    def _receive(self) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        """One message. What descriptors came with it the kernel closes as we return from it, and a TCP connection with
        SO_LINGER can take for ever to close (socket(7)): an alarm ends that, whoever has all signals blocked.

        Raises:
            BlockingIOError: there is none.
        """
        before = _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGALRM,))
        handler = _signal.signal(_signal.SIGALRM, _nothing)
        _signal.setitimer(_signal.ITIMER_REAL, _CLOSING)
        try:
            data, control, flags, _ = self._socket.recvmsg(sd_notify.MESSAGE_MAX, _CREDENTIALS_SPACE)
            return data, control, flags
        finally:
            _signal.setitimer(_signal.ITIMER_REAL, 0)
            _signal.signal(_signal.SIGALRM, handler)
            _signal.pthread_sigmask(_signal.SIG_SETMASK, before)

    def _exhausted(self) -> float:
        now = time.monotonic()
        if now - self._second >= 1:
            self._second, self._count = now, 0
        return self._second + 1 - now if self._count >= _PER_SECOND else 0

    def _tell(self, message: bytes) -> None:
        try:
            if not self._manager.send(message, wait=0.1):
                log.warning("the service manager takes no messages: one of the container's is lost")
        except OSError as error:
            log.warning(f"NOTIFY_SOCKET {self._manager.address!r}: {reason(error)}")

    def wait_forwarding(self, child: Child, signal_fd: int) -> int:
        """`launch.foreground.wait_forwarding` that passes on what the container says meanwhile."""
        poll = select.poll()
        poll.register(child.pidfd, select.POLLIN)
        poll.register(signal_fd, select.POLLIN)
        pause = 0.0
        while True:
            if not pause:
                poll.register(self.fileno(), select.POLLIN)
            found = dict(poll.poll(pause * 1000 if pause else None))
            if signal_fd in found:
                foreground.forward(child, signal_fd)
            pause = self.pass_on()
            if pause:
                poll.unregister(self.fileno())
            if child.pidfd in found:
                return foreground.exit_code(child.reap())

    def wait_ready(self, init: Child) -> None:
        """Return once the container has said that it is ready, with the manager knowing `init` as the main process.

        Or when it has ended: the manager finds that out by itself.

        Raises:
            Interrupted: a signal came first.
        """
        poll = select.poll()
        for fd in (init.pidfd, descriptor()):
            if fd >= 0:
                poll.register(fd, select.POLLIN)
        pause = 0.0
        while not self.ready:
            if not pause:
                poll.register(self.fileno(), select.POLLIN)
            found = dict(poll.poll(pause * 1000 if pause else None))
            check()
            pause = self.pass_on(init.pid)
            if pause:
                poll.unregister(self.fileno())
            if init.pidfd in found:
                break
        if self.ready:
            self._settle()

    def _settle(self) -> None:
        """Wait until the manager has read what we said: a message of a process that is gone may not be believed."""
        try:
            barrier = sd_notify.barrier(self._manager)
        except OSError:
            return  # said already
        poll = select.poll()
        poll.register(barrier, select.POLLIN)
        poll.poll(_PATIENCE)
        os.close(barrier)

    def close(self) -> None:
        """Listen no more; the socket stays in its directory, refusing whoever still comes."""
        self._socket.close()
        self._manager.close()


def _nothing(number: int, frame: object) -> None:
    """A handler, for a signal that is only to interrupt."""


def own_lines(message: bytes) -> list[bytes]:
    """The assignments of a message that a container may make, without control codes: `systemctl status` shows them."""
    return [
        log.printable(line.decode("utf-8", "surrogateescape")).encode()
        for line in message.split(b"\n")
        if line == _ALIVE or (line.partition(b"=")[0] in _PASSED and b"=" in line)
    ]


def _speakers(record: Record) -> frozenset[int]:
    """The host's ids of who may speak for the container: its root, and the user that its init runs as."""
    spec = record["spec"]
    mappings = (spec.get("linux") or {}).get("uidMappings") or ()
    return frozenset(on_host(mappings, uid) for uid in (0, spec["process"]["user"].get("uid", 0)))


def _sender(control: list[tuple[int, int, bytes]]) -> int:
    """The host's id of who sent a message, which the kernel says (unix(7), SO_PASSCRED); -1 where it does not."""
    for level, kind, data in control:
        if (level, kind) == (_socket.SOL_SOCKET, _SCM_CREDENTIALS):
            return int.from_bytes(data[4:8], "little")  # struct ucred: pid, uid, gid
    return -1


def listen(entry: Entry, address: str, record: Record) -> Proxy | None:
    """A proxy between the container's socket, made now, and the manager at `address`; None: it was created without.

    Raises:
        LaunchError: the socket cannot be made.
    """
    try:
        directory = os.open(DIRECTORY, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.dirfd)
    except FileNotFoundError:
        return None
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK)
    link.setsockopt(_socket.SOL_SOCKET, _SO_PASSCRED, 1)
    before = os.umask(0)
    try:
        try:
            os.unlink(SOCKET, dir_fd=directory)
        except FileNotFoundError:
            pass
        # By descriptor: sun_path holds 107 bytes, a state root and an id may be longer.
        link.bind(f"/proc/self/fd/{directory}/{SOCKET}")
    except OSError as error:
        link.close()
        raise LaunchError(f"{entry.path}/{DIRECTORY}/{SOCKET}: {reason(error)}") from error
    finally:
        os.umask(before)
        os.close(directory)
    return Proxy(link, address, _speakers(record))
