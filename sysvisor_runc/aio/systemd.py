"""Talk to systemd over D-Bus: the one file that uses jeepney, which is only its marshalling; sockets are read here.

No loop: a command asks, waits for the answer, and goes on. The machine's manager is asked directly, through a socket
that is there with or without a message bus; a user's manager likewise, or through the user's bus.
"""

from __future__ import annotations

import _socket
import os
import select
import time

from sysvisor_runc.cgroup.systemd import NoUnit, UnitExists
from sysvisor_runc.errors import CgroupError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from jeepney import Message

    from sysvisor_runc.cgroup.unit import Property

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
_BUS = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
_SYSTEM_BUS = "/run/dbus/system_bus_socket"
# How long systemd may take for an answer, and for a job that it has queued: as runc.
_PATIENCE = 30.0
# The socket's queue is full for a moment when many containers start at once.
_RETRIES = 7
_FAILURES: dict[str, type[CgroupError]] = {
    f"{_NAME}.UnitExists": UnitExists,
    f"{_NAME}.NoSuchUnit": NoUnit,
}


def connect(user: bool) -> Systemd:
    """A connection to the machine's service manager, or to the caller's own.

    Raises:
        CgroupError: nobody answers, or jeepney is missing.
    """
    _require_jeepney()
    failed: OSError | None = None
    for address, direct in _user_addresses() if user else (("/run/systemd/private", True), (_SYSTEM_BUS, False)):
        try:
            link, received = _open(address)
            return Systemd(link, received, direct=direct)
        except OSError as error:
            failed = failed or error
            failed.filename = failed.filename or address.replace("\0", "@")
    if failed is None:
        raise CgroupError(
            "no service manager of this user: neither XDG_RUNTIME_DIR nor DBUS_SESSION_BUS_ADDRESS is set",
            hint="log in by a way that opens a session, or give --rootless=false for the machine's manager",
        )
    hint = "is dbus-user-session installed?" if user else "run as root"
    raise CgroupError(f"connect to systemd at {failed.filename}: {reason(failed)}", hint=hint)


def _require_jeepney() -> None:
    from sysvisor_runc.aio.libraries import make_importable

    make_importable()
    try:
        import jeepney  # noqa: F401  # to see whether it is there
    except ImportError as error:
        hint = "apt-get install python3-jeepney, or `make deps` in the source tree"
        raise CgroupError(f"the library jeepney cannot be imported: {error}", hint=hint) from error


def _user_addresses() -> list[tuple[str, bool]]:
    found = []
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    if runtime:
        found.append((f"{runtime}/systemd/private", True))
    bus = os.environ.get("DBUS_SESSION_BUS_ADDRESS") or (f"unix:path={runtime}/bus" if runtime else "")
    if bus:
        from jeepney.bus import get_connectable_addresses

        try:
            found.append((next(iter(get_connectable_addresses(bus))), False))
        except (RuntimeError, ValueError) as error:
            raise CgroupError(f"DBUS_SESSION_BUS_ADDRESS: {bus!r} is no address of a socket here: {error}") from error
    return found


def _open(address: str) -> tuple[_socket.socket, bytes]:
    """A socket that has said who we are, and what has come of the first messages. Raises OSError."""
    for attempt in range(_RETRIES):
        link = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            link.connect(address)
            return link, _authenticate(link)
        except BlockingIOError:
            link.close()
            time.sleep(0.1 * 2**attempt)
        except BaseException:
            link.close()
            raise
    raise BlockingIOError(11, os.strerror(11), address)


def _authenticate(link: _socket.socket) -> bytes:
    """EXTERNAL with no name of our own: the other side asks the kernel, which knows us in any user namespace.

    All at once: a message that systemd reads together with BEGIN would lie there until something else arrives. What is
    read behind its answer is returned: over a direct connection signals come unasked, and at once.
    """
    link.settimeout(_PATIENCE)
    link.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
    answer = b""
    while answer.count(b"\r\n") < 2 and b"REJECTED" not in answer:
        part = link.recv(1024)
        if not part:
            raise ConnectionResetError(104, os.strerror(104))
        answer += part
    if b"\r\nOK " not in answer:
        raise PermissionError(13, os.strerror(13))
    return answer.split(b"\r\n", 2)[2]


class Systemd:
    """A connection to a service manager; see `cgroup.systemd.ServiceManager`."""

    __slots__ = ("_link", "_parser", "_removed", "_serial", "_version")

    def __init__(self, link: _socket.socket, received: bytes, *, direct: bool) -> None:
        """Talk over `link`, from which `received` has been read already; a `direct` one leads past the message bus."""
        from jeepney import Parser

        self._link = link
        self._parser = Parser()
        self._parser.add_data(received)
        self._serial = 0
        self._version = 0
        # Path of a job → how it ended: the signal may come before we look for it.
        self._removed: dict[str, str] = {}
        if not direct:
            # A direct connection gets every signal unasked.
            self._call("Hello", to=_BUS)
            rule = f"type='signal',sender='{_NAME}',interface='{_MANAGER}',member='JobRemoved',path='{_PATH}'"
            self._call("AddMatch", "s", (rule,), to=_BUS)
            self._call("Subscribe")

    def fileno(self) -> int:
        return self._link.fileno()

    def close(self) -> None:
        self._link.close()

    # ---- what is asked

    def control_group(self) -> str:
        """The cgroup below which the manager has its units, as it sees it: `` or `/` for the machine's."""
        return str(self._property("ControlGroup"))

    def version(self) -> int:
        """systemd's version, 252 of `252.38-1~deb12u1`; 0 where it does not say one."""
        if not self._version:
            text = str(self._property("Version")).lstrip("v")
            digits = text[: len(text) - len(text.lstrip("0123456789"))]
            self._version = int(digits or "0")
        return self._version

    def start(self, name: str, properties: list[Property]) -> None:
        """Make a transient unit and wait until it is there."""
        job = self._call("StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "replace", properties, []), unit=name)
        result = self._finished(job, f"create {name}")
        if result != "done":
            try:
                self.reset_failed(name)
            except CgroupError:
                pass  # what it came to is what is worth telling
            raise CgroupError(f"error creating systemd unit {name!r}: got {result!r}", hint=f"systemctl status {name}")

    def stop(self, name: str) -> None:
        """Stop a unit and wait until that is done."""
        job = self._call("StopUnit", "ss", (name, "replace"), unit=name)
        result = self._finished(job, f"remove {name}")
        if result != "done":
            raise CgroupError(f"error removing systemd unit {name!r}: got {result!r}", hint=f"systemctl status {name}")

    def reset_failed(self, name: str) -> None:
        """Have a failed unit forgotten."""
        self._call("ResetFailedUnit", "s", (name,), unit=name)

    def set_properties(self, name: str, properties: list[Property]) -> None:
        """Change a unit at run time."""
        self._call("SetUnitProperties", "sba(sv)", (name, True, properties), unit=name)

    def attach(self, name: str, below: str, pid: int) -> None:
        """Move a process into a unit's cgroup, or one below it."""
        self._call("AttachProcessesToUnit", "ssau", (name, below, [pid]), unit=name)

    def _property(self, name: str) -> object:
        (_, value), *_ = self._call("Get", "ss", (_MANAGER, name), to=(_NAME, _PATH, _PROPERTIES))
        return value

    # ---- messages

    def _call(
        self,
        method: str,
        types: str | None = None,
        values: tuple[object, ...] = (),
        *,
        to: tuple[str, str, str] = (_NAME, _PATH, _MANAGER),
        unit: str = "",
    ) -> tuple:  # type: ignore[type-arg]  # what a method returns, only D-Bus knows
        """Call a method and wait for what it returns."""
        from jeepney import DBusAddress, HeaderFields, MessageType, new_method_call

        destination, path, interface = to
        message = new_method_call(DBusAddress(path, destination, interface), method, types, values)
        self._serial += 1
        try:
            data = message.serialise(serial=self._serial)
        except Exception as error:  # the library has many ways to say that a value has the wrong type
            raise CgroupError(f"systemd {method}: a property's value does not fit its type: {error}") from error
        deadline = time.monotonic() + _PATIENCE
        try:
            self._link.settimeout(_PATIENCE)
            self._link.sendall(data)
            while True:
                answer = self._receive(deadline)
                if answer.header.fields.get(HeaderFields.reply_serial) == self._serial:
                    break
        except OSError as error:
            raise CgroupError(f"systemd does not answer to {method}: {reason(error)}") from error
        if answer.header.message_type is MessageType.error:
            raise _failure(method, unit, answer)
        return tuple(answer.body)

    def _finished(self, job: tuple[object, ...], what: str) -> str:
        """How a job ended, once it has."""
        path = str(job[0])
        deadline = time.monotonic() + _PATIENCE
        while path not in self._removed:
            try:
                self._receive(deadline)
            except TimeoutError:
                raise CgroupError(f"timeout waiting for systemd to {what}", hint="systemctl list-jobs") from None
            except OSError as error:
                raise CgroupError(f"waiting for systemd to {what}: {reason(error)}") from error
        return self._removed.pop(path)

    def _receive(self, deadline: float) -> Message:
        """The next message; the ends of jobs are noted on the way. Raises OSError, TimeoutError."""
        while (message := self._parser.get_next_message()) is None:
            poll = select.poll()
            poll.register(self._link.fileno(), select.POLLIN)
            if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise TimeoutError(110, os.strerror(110))
            data = self._link.recv(1 << 16)
            if not data:
                raise ConnectionResetError(104, os.strerror(104))
            self._parser.add_data(data)
        self._note(message)
        return message

    def _note(self, message: Message) -> None:
        from jeepney import HeaderFields, MessageType

        fields = message.header.fields
        if message.header.message_type is MessageType.signal and fields.get(HeaderFields.member) == "JobRemoved":
            # JobRemoved(u id, o job, s unit, s result), since systemd 183
            self._removed[message.body[1]] = message.body[3]


def _failure(method: str, unit: str, answer: Message) -> CgroupError:
    from jeepney import HeaderFields

    name = str(answer.header.fields.get(HeaderFields.error_name, ""))
    text = str(answer.body[0]).rstrip(".") if answer.body else name
    what = f"systemd {method} {unit}".rstrip()
    hint = None
    if name.endswith((".AccessDenied", ".InteractiveAuthorizationRequired")):
        hint = "run as root, or give --rootless=true for your own service manager"
    elif name == f"{_NAME}.UnitExists":
        hint = f"another container or service has it: systemctl status {unit}"
    return _FAILURES.get(name, CgroupError)(f"{what}: {text[:1].lower()}{text[1:]}", hint=hint)
