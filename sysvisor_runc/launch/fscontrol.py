"""Ask sysvisor-fs over its plain control socket: one packet each way, descriptors with the answer. No asyncio, no gRPC.

`_socket` itself, since the socket module costs as much as ten such questions.
"""

from __future__ import annotations

import _socket
import os

from sysvisor_runc.contract import names
from sysvisor_runc.errors import LaunchError, reason

_PATIENCE = int(names.DEADLINE).to_bytes(8, "little") + bytes(8)  # struct timeval
_ANSWER_MAX = 1 << 20
_FDS_MAX = 253  # SCM_MAX_FD


def run_dir() -> str:
    """The directory of the daemon's sockets."""
    return os.environ.get(names.RUN_DIR_VARIABLE) or names.RUN_DIR


def connect(directory: str) -> _socket.socket | None:
    """A connection to the daemon of `directory`; None where none listens there.

    Raises:
        LaunchError: one does, but not to us.
    """
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


def ask(link: _socket.socket, request: dict[str, object]) -> tuple[dict[str, object], list[int]]:
    """The answer to `request` and the descriptors that came with it, the caller's to close.

    Raises:
        LaunchError: the daemon refuses, or does not answer in time.
    """
    from sysvisor_runc.jsonlight import dumps, loads

    try:
        link.send(dumps(request).encode())
        data, control, _, _ = link.recvmsg(_ANSWER_MAX, _socket.CMSG_SPACE(4 * _FDS_MAX), _socket.MSG_CMSG_CLOEXEC)
    except BlockingIOError:
        raise failure(f"no answer within {names.DEADLINE:g} s") from None
    except OSError as error:
        raise failure(f"no answer: {reason(error)}") from error
    fds = [int.from_bytes(part[at : at + 4], "little") for _, _, part in control for at in range(0, len(part), 4)]
    answer = loads(data) if data else {"error": "it ended without an answer"}
    if not isinstance(answer, dict) or "error" in answer:
        for fd in fds:
            os.close(fd)
        raise failure(str(answer.get("error")) if isinstance(answer, dict) else "its answer is no object")
    return answer, fds


def failure(text: str) -> LaunchError:
    """What went wrong with the daemon, and how to do without."""
    hint = f"see {run_dir()}/{names.LOG_FILE}, or do without: --no-sysvisor-fs"
    return LaunchError(f"sysvisor-fs: {text}", hint=hint)
