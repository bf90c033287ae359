"""One conversation with `criu swrk`: requests and answers as messages over a socket pair, no command line, no scraping.

criu is found in $PATH, or is what --criu names. Its protobuf messages are the `contract`'s.
"""

from __future__ import annotations

import _socket
import os
import sys

from sysvisor_runc.criu.rpc import criu_pb2 as messages
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.kernel.namespaces import clone3
from sysvisor_runc.kernel.signals import reset_signals
from sysvisor_runc.launch.interrupt import wait_readable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    # Called at a step that criu announces, with its name, the pid of init there, and descriptors sent along.
    Notified = Callable[[str, int, list[int]], None]

OLDEST = 30000  # the first version that tells its version
_SOCKET_FD = 3  # where criu looks for it, as told on its command line
FIRST_FD = 4
_MESSAGE_MAX = 10 * 4096
_FDS_MAX = 8
_LOOK_SECONDS = 2
_SIGKILL = 9
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CriuError(SysvisorError):
    """criu is missing, too old, or has failed."""


class Session:
    """A running criu.

    Attributes:
        pid: of the criu process; a restored init is its sibling.
    """

    __slots__ = ("_link", "_pidfd", "pid")

    def __init__(
        self,
        program: str,
        *,
        cgroup_fd: int | None = None,
        prepare: Callable[[], object] = int,
        descriptors: Sequence[int] = (),
    ) -> None:
        """Start criu, after `prepare` has run in its process.

        It gets our standard streams, and `descriptors` from FIRST_FD on.

        Raises:
            CriuError: it is not there.
        """
        path = find(program)
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
        self._link = ours
        self.pid, self._pidfd = clone3(0, cgroup_fd=cgroup_fd)
        if self.pid == 0:
            _become(path, theirs.fileno(), descriptors, prepare)
        theirs.close()

    def call(
        self,
        request: messages.Request,
        notified: Notified = lambda step, pid, fds: None,
        alive: Callable[[], bool] = lambda: True,
    ) -> messages.Answer:
        """Ask for one thing; `notified` is called at each step on the way.

        Where `alive` has come to be false criu is ended: it waits for ever for an init that it has killed, whose
        children it traces.

        Raises:
            CriuError: it failed, or criu is gone.
            Interrupted: a signal came, where those are held back.
        """
        self._send(request)
        while True:
            answer, fds = self._receive(alive)
            try:
                if not answer.success:
                    raise CriuError(_failed(request, answer))
                if answer.type != messages.NOTIFY:
                    return answer
                notified(answer.notify.script, answer.notify.pid, fds)
            finally:
                for fd in fds:
                    os.close(fd)
            self._send(messages.Request(type=messages.NOTIFY, notify_success=True))

    def _send(self, request: messages.Request) -> None:
        try:
            self._link.send(request.SerializeToString(), _socket.MSG_NOSIGNAL)
        except OSError:
            raise CriuError("criu has ended unexpectedly") from None

    def _receive(self, alive: Callable[[], bool]) -> tuple[messages.Answer, list[int]]:
        while not wait_readable(self._link.fileno(), _LOOK_SECONDS):
            if not alive():
                os.kill(self.pid, _SIGKILL)
                raise CriuError("criu has lost the container that it was restoring")
        data = b""
        control: list[tuple[int, int, bytes]] = []
        try:
            data, control, _, _ = self._link.recvmsg(
                _MESSAGE_MAX, _socket.CMSG_SPACE(_FDS_MAX * 4), _socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            pass
        if not data:
            raise CriuError("criu has ended unexpectedly")
        fds = [
            int.from_bytes(part[offset : offset + 4], sys.byteorder)
            for level, kind, part in control
            if (level, kind) == (_socket.SOL_SOCKET, _socket.SCM_RIGHTS)
            for offset in range(0, len(part) - 3, 4)
        ]
        return messages.Answer.FromString(data), fds

    def close(self) -> int:
        """End the conversation; criu's exit code, 0 too where somebody else has reaped it.

        A criu that is not done fails at its next step: it lets a container that it was saving run on, and ends one that
        it was restoring.

        Raises:
            Interrupted: a signal came first; it is not waited for any more.
        """
        self._link.close()
        try:
            wait_readable(self._pidfd)
        finally:
            os.close(self._pidfd)
        try:
            return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        except ChildProcessError:
            return 0


def find(program: str) -> str:
    """The path of criu: `program` as given with --criu, or by name in $PATH.

    Raises:
        CriuError: it is not there.
    """
    name = program or "criu"
    places = [name] if "/" in name else [f"{d}/{name}" for d in os.environ.get("PATH", _PATH).split(":") if d]
    for path in places:
        if os.access(path, os.X_OK) and os.path.isfile(path):
            return path
    raise CriuError(
        f"{name!r} not found", hint="install criu (version 4 for Linux 6.9 and later), or name it with --criu"
    )


def version(program: str) -> int:
    """criu's version as one number, 4.1.1 being 40101.

    Raises:
        CriuError: it is missing or too old.
    """
    answer = ask(program, messages.Request(type=messages.VERSION)).version
    number = answer.major_number * 10000 + answer.minor_number * 100 + answer.sublevel
    if number < OLDEST:
        raise CriuError(
            f"criu {answer.major_number}.{answer.minor_number} is too old", hint="3.17 and later are tested"
        )
    return number


def require_features(program: str, **wanted: bool) -> None:
    """See that criu and the kernel have `mem_track` or `lazy_pages`.

    Raises:
        CriuError: they have not.
    """
    request = messages.Request(type=messages.FEATURE_CHECK, features=messages.Features(**wanted))
    found = ask(program, request).features
    missing = [name for name in wanted if not getattr(found, name)]
    if missing:
        raise CriuError(f"criu or this kernel lacks {', '.join(missing)}", hint="criu check --all says more")


def ask(program: str, request: messages.Request) -> messages.Answer:
    """One question of a criu that is started for it. Raises CriuError."""
    session = Session(program)
    try:
        return session.call(request)
    finally:
        session.close()


def _failed(request: messages.Request, answer: messages.Answer) -> str:
    kind = messages.Kind.Name(request.type)
    reason = f": {os.strerror(answer.cr_errno).lower()}" if answer.cr_errno else ""
    return f"criu failed: type {kind} errno {answer.cr_errno}{reason}"


def _become(path: str, link: int, descriptors: Sequence[int], prepare: Callable[[], object]) -> NoReturn:
    """The child of the fork: arrange descriptors and become criu."""
    try:
        reset_signals()
        prepare()
        # Out of the way of the numbers that they are to have.
        wanted = _above([link, *descriptors])
        for number, fd in enumerate(wanted, _SOCKET_FD):
            os.dup2(fd, number)  # inheritable
        os.closerange(_SOCKET_FD + len(wanted), 1 << 16)
        os.execv(path, ["criu", "swrk", str(_SOCKET_FD)])
    except OSError as error:
        text = f"{path}: {error}\n" if not hasattr(error, "call") else f"{error}\n"
        os.write(2, text.encode("utf-8", "surrogateescape"))
    finally:
        os._exit(127)


def _above(fds: list[int]) -> list[int]:
    import fcntl

    return [fcntl.fcntl(fd, fcntl.F_DUPFD, _SOCKET_FD + len(fds)) for fd in fds]
