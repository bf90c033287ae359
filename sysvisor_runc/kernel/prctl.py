"""prctl(2) as far as the runtime needs it, and capget/capset(2)."""

from sysvisor_runc.kernel.syscall import address, buffer, syscall

PR_SET_PDEATHSIG = 1
PR_GET_PDEATHSIG = 2
PR_GET_DUMPABLE = 3
PR_SET_DUMPABLE = 4
PR_SET_KEEPCAPS = 8
PR_SET_NAME = 15
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
PR_CAP_AMBIENT_CLEAR_ALL = 4
PR_SET_MDWE = 65

_LINUX_CAPABILITY_VERSION_3 = 0x20080522


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    """prctl(2) with integer arguments."""
    return syscall("prctl", option, arg2, arg3, arg4, arg5, operand=str(option))


def set_name(name: str) -> None:
    """Set the thread's name as /proc/PID/comm shows it; the kernel keeps 15 bytes."""
    syscall("prctl", PR_SET_NAME, name.encode()[:15] + b"\0", 0, 0, 0)


def capget() -> tuple[int, int, int]:
    """The calling thread's effective, permitted and inheritable sets as bit masks (capget(2), version 3)."""
    header = _LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    data = buffer(24)
    syscall("capget", header, address(data))
    words = [int.from_bytes(bytes(data)[i : i + 4], "little") for i in range(0, 24, 4)]
    return words[0] | words[3] << 32, words[1] | words[4] << 32, words[2] | words[5] << 32


def capset_data(effective: int, permitted: int, inheritable: int) -> tuple[bytes, bytes]:
    """Header and data of capset(2), version 3: two 32-bit words of each set, the low ones first."""
    header = _LINUX_CAPABILITY_VERSION_3.to_bytes(4, "little") + bytes(4)
    sets = (effective, permitted, inheritable)
    low = b"".join((n & 0xFFFFFFFF).to_bytes(4, "little") for n in sets)
    high = b"".join((n >> 32).to_bytes(4, "little") for n in sets)
    return header, low + high


def capset(effective: int, permitted: int, inheritable: int) -> None:
    """Set the calling thread's sets (capset(2))."""
    syscall("capset", *capset_data(effective, permitted, inheritable))
