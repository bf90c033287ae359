"""The service manager's side of a process: sd_notify(3) messages out, the descriptors of sd_listen_fds(3) in.

Datagrams of `NAME=value` lines to the socket that $NOTIFY_SOCKET names. No policy, no loop, and nothing but `_socket`:
a daemon, a command and a launch share it.
"""

from __future__ import annotations

import _socket
import os

LISTEN_FDS_START = 3
# PIPE_BUF: systemd takes no longer message (NOTIFY_BUFFER_MAX).
MESSAGE_MAX = 4096
_FDS_MAX = 253  # SCM_MAX_FD
_NAME_MAX = 255  # FDNAME_MAX
_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class NotifySocket:
    """A connection to the socket of a service manager; `address` as in $NOTIFY_SOCKET, `@…` is an abstract one."""

    __slots__ = ("_socket", "address")

    def __init__(self, address: str) -> None:
        self.address = address
        self._socket: _socket.socket | None = None

    def fileno(self) -> int:
        """The descriptor to wait on until it takes more; -1 while there is no connection."""
        return -1 if self._socket is None else self._socket.fileno()

    def send(self, message: bytes, fds: tuple[int, ...] = (), *, wait: float = 0) -> bool:
        """Send one message; False where the manager's queue stays full for `wait` seconds.

        Raises:
            OSError: nobody listens there.
        """
        try:
            return self._send(message, fds, wait)
        except OSError as error:
            if error.errno not in (107, 111):  # ENOTCONN, ECONNREFUSED: the socket was made anew
                raise
        self.close()
        return self._send(message, fds, wait)

    def _send(self, message: bytes, fds: tuple[int, ...], wait: float) -> bool:
        link = self._connected()
        link.settimeout(wait)
        rights = b"".join(fd.to_bytes(4, "little") for fd in fds)
        try:
            link.sendmsg([message], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, rights)] if fds else [])
        except (BlockingIOError, TimeoutError):
            return False
        return True

    def _connected(self) -> _socket.socket:
        if self._socket is None:
            link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
            try:
                link.connect(b"\0" + os.fsencode(self.address[1:]) if self.address[0] == "@" else self.address)
            except BaseException:
                link.close()
                raise
            self._socket = link
        return self._socket

    def close(self) -> None:
        """Close the connection; the next message opens it again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def address() -> str:
    """$NOTIFY_SOCKET where it names a socket that we can reach, "" otherwise (vsock: is for virtual machines)."""
    text = os.environ.get("NOTIFY_SOCKET", "")
    return text if text[:1] in ("/", "@") and len(text) > 1 else ""


def text(**values: str | int) -> bytes:
    """A message of these assignments; what does not fit on a line of its own is made to, and cut at the end."""
    lines = [f"{name}={' '.join(str(value).splitlines())}" for name, value in values.items()]
    return "\n".join(lines).encode("utf-8", "replace")[:MESSAGE_MAX]


def notify(**values: str | int) -> bool:
    """Tell the service manager, if we have one; False where nobody was told. Never raises."""
    where = address()
    if not where:
        return False
    link = NotifySocket(where)
    try:
        return link.send(text(**values), wait=5)
    except OSError:
        return False
    finally:
        link.close()


def store(link: NotifySocket, name: str, *fds: int) -> bool:
    """Have the manager keep `fds` over our end and hand them to our successor (FileDescriptorStoreMax=, `listen_fds`).

    FDPOLL=0, or it would drop a terminal's master, or a pidfd, whose other end has gone (systemd 246).
    """
    done = True
    for start in range(0, len(fds), _FDS_MAX):
        part = fds[start : start + _FDS_MAX]
        done = link.send(text(FDSTORE=1, FDPOLL=0, FDNAME=fd_name(name)), part, wait=5) and done
    return done


def forget(link: NotifySocket, name: str) -> bool:
    """Have the manager close what it keeps under `name` (systemd 236)."""
    return link.send(text(FDSTOREREMOVE=1, FDNAME=fd_name(name)), wait=5)


def barrier(link: NotifySocket) -> int:
    """Ask to be told when all earlier messages are worked off: a descriptor that reads end-of-file then (systemd 246).

    Raises:
        OSError: nobody listens there, or not even this message was taken.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not link.send(text(BARRIER=1), (writer,), wait=5):
            raise TimeoutError(110, os.strerror(110))
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return reader


def fd_name(name: str) -> str:
    """`name` as FDNAME= takes it: printable, no colon, 255 characters; others get a name that is, always the same."""
    if len(name) <= _NAME_MAX and name.isascii() and name.isprintable() and ":" not in name:
        return name
    from _blake2 import blake2b

    digest = blake2b(name.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()
    kept = "".join(c if c.isascii() and c.isprintable() and c != ":" else "_" for c in name)
    return f"{kept[: _NAME_MAX - 33]}-{digest}"


def watchdog_usec() -> int:
    """How often the manager wants to hear WATCHDOG=1 of this process, in microseconds; 0: it does not."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not _is_number(usec) or (pid and pid != str(os.getpid())):
        return 0
    return int(usec)


def listen_fds() -> list[tuple[str, int]]:
    """(name, descriptor) of what the manager handed to this process, from 3 on: sockets, and what `store` had it keep.

    Close-on-exec from here on. Where $LISTEN_PID is another process's, they are not ours. A number that is
    not open ends the list, so that nothing opened later is taken for one of them.
    """
    count = os.environ.get("LISTEN_FDS", "")
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not _is_number(count):
        return []
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    found = []
    for index in range(int(count)):
        fd = LISTEN_FDS_START + index
        try:
            os.set_inheritable(fd, False)
        except (OSError, OverflowError):
            break
        found.append((names[index] if index < len(names) and names[index] else "unknown", fd))
    return found


def clear_environment() -> None:
    """Forget what the manager told us, so that nobody whom we start takes it for himself."""
    for name in _VARIABLES:
        os.environ.pop(name, None)


def _is_number(digits: str) -> bool:
    return digits.isascii() and digits.isdigit() and len(digits) < 19
