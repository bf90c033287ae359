"""Ask sysvisor-fs over its plain control socket: one packet each way, descriptors with the answer. No asyncio, no gRPC.

`_socket` itself, since the socket module costs as much as ten such questions.
"""

from __future__ import annotations

import _socket
import os
import time

from sysvisor_runc.contract import names
from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.launch.interrupt import check, wait_readable

_PATIENCE = int(names.DEADLINE).to_bytes(8, "little") + bytes(8)  # struct timeval
_ANSWER_MAX = 1 << 20
_FDS_MAX = 253  # SCM_MAX_FD
_TICK = 0.01
_EMSGSIZE = 90


class NoAnswer(LaunchError):
    """There is no answer. `ended`: whoever was asked is not there any more."""

    def __init__(self, text: str, *, ended: bool = False) -> None:
        problem = failure(text)
        super().__init__(problem.message, hint=problem.hint)
        self.ended = ended


class Refusal(LaunchError):
    """The daemon has refused; `code` is a status code of gRPC by its name."""

    def __init__(self, text: str, code: str) -> None:
        problem = failure(text)
        super().__init__(problem.message, hint=problem.hint)
        self.code = code


class Connection:
    """To the daemon of `directory`. Requests go out in order, and so come the answers."""

    __slots__ = ("_directory", "_link")

    def __init__(self, directory: str, link: _socket.socket) -> None:
        self._directory = directory
        self._link = link

    def fileno(self) -> int:
        return self._link.fileno()

    def close(self) -> None:
        """Hang up. What was announced and not registered is forgotten."""
        self._link.close()

    def send(self, request: dict[str, object]) -> None:
        """Ask; that nobody is there comes out when the answer is waited for.

        Raises:
            LaunchError: the kernel takes no packet of that size.
        """
        from sysvisor_runc.jsonlight import dumps

        try:
            self._link.send(dumps(request).encode(), _socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno == _EMSGSIZE:
                raise failure(f"a request of more than {names.PACKET_MAX} bytes") from error

    def receive(self) -> tuple[dict[str, object], list[int]]:
        """The next answer, a failure being {"error": TEXT, "code": STATUS}, and its descriptors, the caller's to close.

        Raises:
            NoAnswer: the daemon has ended, or does not answer in time.
            LaunchError: we can have no more descriptors.
            Interrupted: a signal came first.
        """
        from sysvisor_runc.jsonlight import loads

        if not wait_readable(self.fileno(), names.DEADLINE):
            raise NoAnswer(f"no answer within {names.DEADLINE:g} s")
        try:
            data, control, flags, _ = self._link.recvmsg(
                _ANSWER_MAX, _socket.CMSG_SPACE(4 * _FDS_MAX), _socket.MSG_CMSG_CLOEXEC
            )
        except OSError as error:
            raise NoAnswer(f"no answer: {reason(error)}", ended=True) from error
        if not data:
            raise NoAnswer("it ended without an answer", ended=True)
        fds = [int.from_bytes(part[at : at + 4], "little") for _, _, part in control for at in range(0, len(part), 4)]
        if flags & _socket.MSG_CTRUNC:
            for fd in fds:
                os.close(fd)
            raise failure("its files cannot be had: too many open files")
        answer = loads(data)
        return answer if isinstance(answer, dict) else {"error": "its answer is no object"}, fds

    def ask(self, request: dict[str, object]) -> tuple[dict[str, object], list[int]]:
        """The answer to `request`, which may be asked twice, and the descriptors that came with it. Nothing else is
        under way.

        Raises:
            Refusal: the daemon says no.
            NoAnswer: it does not answer in time.
        """
        self.send(request)
        try:
            answer, fds = self.receive()
        except NoAnswer as problem:
            if not problem.ended:
                raise
            self.renew()
            self.send(request)
            answer, fds = self.receive()
        if "error" in answer:
            for fd in fds:
                os.close(fd)
            raise Refusal(str(answer["error"]), str(answer.get("code")))
        return answer, fds

    def renew(self) -> None:
        """The daemon has ended: connect to the next one.

        Raises:
            NoAnswer: none comes up.
        """
        self._link.close()
        deadline = time.monotonic() + names.DEADLINE
        while time.monotonic() < deadline:
            link = _connected(self._directory)
            if link is not None:
                self._link = link
                return
            check()
            time.sleep(_TICK)
        raise NoAnswer(f"it has ended, and no other one has come up within {names.DEADLINE:g} s", ended=True)


def run_dir() -> str:
    """The directory of the daemon's sockets."""
    return os.environ.get(names.RUN_DIR_VARIABLE) or names.RUN_DIR


def connect(directory: str) -> Connection | None:
    """A connection to the daemon of `directory`; None where none listens there.

    Raises:
        LaunchError: one does, but not to us.
    """
    link = _connected(directory)
    return None if link is None else Connection(directory, link)


def _connected(directory: str) -> _socket.socket | None:
    link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET | _socket.SOCK_CLOEXEC)
    for option in (_socket.SO_SNDTIMEO, _socket.SO_RCVTIMEO):
        link.setsockopt(_socket.SOL_SOCKET, option, _PATIENCE)
    path = f"{directory}/{names.CONTROL_SOCKET}"
    try:
        link.connect(path)
    except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
        link.close()
        return None
    except OSError as error:
        link.close()
        raise failure(f"connect to {path!r}: {reason(error)}") from error
    return link


def failure(text: str) -> LaunchError:
    """What went wrong with the daemon, and how to do without."""
    hint = f"see {run_dir()}/{names.LOG_FILE}, or do without: --no-sysvisor-fs"
    return LaunchError(f"sysvisor-fs: {text}", hint=hint)
