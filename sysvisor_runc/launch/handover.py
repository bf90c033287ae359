"""Send descriptors over AF_UNIX sockets: terminal masters, pidfds, seccomp listeners (unix(7), SCM_RIGHTS).

`_socket` itself, since the socket module costs as much as ten launches of its system calls.
"""

from __future__ import annotations

import _socket

from sysvisor_runc.errors import LaunchError, reason

_PATIENCE = (10).to_bytes(8, "little") + bytes(8)  # struct timeval: seconds and microseconds


def connect(path: str, what: str) -> _socket.socket:
    """A stream connected to the socket at `path`.

    Raises:
        LaunchError: nobody listens there; `what` names the flag or field.
    """
    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
    # A listener that accepts nobody lets connect(2) wait as well, once its queue is full.
    connection.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _PATIENCE)
    try:
        connection.connect(path)
    except OSError as error:
        connection.close()
        raise LaunchError(
            f"{what}: connect to {path!r}: {reason(error)}", hint="something must listen there"
        ) from error
    return connection


def send_descriptor(path: str, fd: int, data: bytes, what: str) -> None:
    """Send `fd` with `data` to the socket at `path`.

    Raises:
        LaunchError: it could not be sent.
    """
    connection = connect(path, what)
    try:
        rights = (_socket.SOL_SOCKET, _socket.SCM_RIGHTS, fd.to_bytes(4, "little"))
        connection.sendmsg([data], [rights])
    except OSError as error:
        raise LaunchError(f"{what}: send to {path!r}: {reason(error)}") from error
    finally:
        connection.close()
