"""The process events connector (netlink, CONFIG_PROC_EVENTS, drivers/connector/cn_proc.c): how processes end that are
nobody's children here. For root in the initial user, pid and network namespaces.

The kernel would tell of every process of the machine; a socket filter has it tell of those that are asked about.
"""

import _socket
import sys

from sysvisor_runc.kernel.syscall import address, buffer

_NETLINK_CONNECTOR = 11
_CN_IDX_PROC = _CN_VAL_PROC = 1
_PROC_CN_MCAST_LISTEN, _PROC_CN_MCAST_IGNORE = 1, 2
_NLMSG_DONE = 3
_SO_ATTACH_FILTER = 26
# Offsets in a message: struct nlmsghdr (16 bytes), struct cn_msg (20), struct proc_event, whose `what` comes first.
_WHAT, _PID, _TGID, _EXIT_CODE, _LENGTH = 36, 52, 56, 60, 64
_PROC_EVENT_EXIT = 0x80000000
_LOAD, _EQUALS, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
# So many have a check of their own: two filters, the old one and the new, must fit in net.core.optmem_max, 20 KiB.
FEW = 500


def _bytes(value: int) -> bytes:
    return value.to_bytes(4, sys.byteorder)


def _network_order(value: int) -> int:
    """The word as a filter loads it: it takes packets to be big-endian."""
    return int.from_bytes(_bytes(value), "big")


def _instruction(code: int, value: int, *, if_so: int = 0, if_not: int = 0) -> bytes:
    """struct sock_filter."""
    return code.to_bytes(2, sys.byteorder) + bytes([if_so, if_not]) + _bytes(value)


_KEEP, _DROP = _instruction(_RETURN, 0xFFFF), _instruction(_RETURN, 0)
_IS_EXIT = (
    _instruction(_LOAD, _WHAT)
    + _instruction(_EQUALS, _network_order(_PROC_EVENT_EXIT), if_so=1)
    + _DROP
    + _instruction(_LOAD, _TGID)
)


class ProcConnector:
    """Tells how the processes ended that it was asked to watch. Beyond `FEW` the kernel tells of all others as well."""

    __slots__ = ("_checks", "_ends", "_link")

    def __init__(self) -> None:
        """Raises OSError: there is none, or not for us."""
        self._ends: dict[int, tuple[int | None, int | None]] = {}  # pid → exit codes of the first thread and the last
        self._checks: dict[int, bytes] = {}
        kind = _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC | _socket.SOCK_NONBLOCK
        self._link = _socket.socket(_socket.AF_NETLINK, kind, _NETLINK_CONNECTOR)
        try:
            self._set_filter()
            self._link.bind((0, _CN_IDX_PROC))
            self._ask(_PROC_CN_MCAST_LISTEN)
        except OSError:
            self._link.close()
            raise

    def fileno(self) -> int:
        """Readable when `read` has something to do."""
        return self._link.fileno()

    def watch(self, pid: int) -> None:
        """Remember how process `pid` will end."""
        self._ends[pid] = (None, None)
        self._checks[pid] = _instruction(_EQUALS, _network_order(pid), if_not=1) + _KEEP
        self._set_filter()

    def forget(self, pid: int) -> None:
        """It is of no interest any more."""
        if self._ends.pop(pid, None) is not None:
            del self._checks[pid]
            self._set_filter()

    def wait_status(self, pid: int) -> int | None:
        """How the dead process `pid` ended, as wait(2) tells it; None where that was not told.

        All threads of a process that was ended as a whole have one code. Where the first one left early it says nothing
        of what came afterwards.
        """
        self.read()
        first, last = self._ends.get(pid, (None, None))
        return first if first == last else None

    def read(self) -> None:
        """Take in what the kernel has told."""
        while True:
            try:
                message = self._link.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                continue  # ENOBUFS: some of it is lost
            if len(message) < _LENGTH or _word(message, _WHAT) != _PROC_EVENT_EXIT:
                continue
            pid, tgid, code = (_word(message, at) for at in (_PID, _TGID, _EXIT_CODE))
            if tgid in self._ends:
                self._ends[tgid] = (code if pid == tgid else self._ends[tgid][0], code)

    def close(self) -> None:
        """Have the kernel stop telling."""
        try:
            self._ask(_PROC_CN_MCAST_IGNORE)
        except OSError:
            pass
        self._link.close()

    def _ask(self, operation: int) -> None:
        words = (_CN_IDX_PROC, _CN_VAL_PROC, 0, 0)
        data = b"".join(map(_bytes, words)) + (4).to_bytes(2, sys.byteorder) + bytes(2) + _bytes(operation)
        header = _bytes(16 + len(data)) + _NLMSG_DONE.to_bytes(2, sys.byteorder) + bytes(10)
        self._link.send(header + data)

    def _set_filter(self) -> None:
        """Drop all messages but ends, and of others' threads if we watch few processes (bpf(2), classic)."""
        checks = [*self._checks.values()]
        code = _IS_EXIT + (b"".join(checks) + _DROP if len(checks) <= FEW else _KEEP)
        kept = buffer(len(code))
        kept.raw = code  # type: ignore[misc, assignment]  # typeshed knows of ctypes' own c_char only
        # struct sock_fprog: how many instructions, padding, and their address.
        fprog = (len(code) // 8).to_bytes(2, sys.byteorder) + bytes(6) + address(kept).to_bytes(8, sys.byteorder)
        self._link.setsockopt(_socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def _word(message: bytes, at: int) -> int:
    return int.from_bytes(message[at : at + 4], sys.byteorder)
