"""The sysctls that are not simply the kernel's: each with where its value lives and what may be written. Data only.

STORE   the container's own value: kept by the daemon, without effect on the kernel
NET     the kernel's where it has one per network namespace that may be written there, else as STORE
READ    the host's, never written
CALC    computed for the container
IPC, UTS, USER, PID
        the kernel's in that namespace of the caller; PID as STORE where the kernel has one for all
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from sysvisor_fs.nodes.sysctl_values import INT_MAX, UINT_MAX, integers, one_of, unsigned
from sysvisor_fs.nodes.sysctl_values import increasing as never_back
from sysvisor_fs.passthrough.identity import CAP_SYS_ADMIN, CAP_SYS_PTRACE

if TYPE_CHECKING:
    from sysvisor_fs.nodes.sysctl_values import Parser

STORE, NET, READ, CALC, IPC, UTS, USER, PID = "store", "net", "read", "calc", "ipc", "uts", "user", "pid"


class Row(NamedTuple):
    """One sysctl.

    Attributes:
        kind: where its value lives.
        parse: judges what is written where the kernel does not.
        capability: what a writer needs in the container's user namespace, besides being its root.
        reason: why it is so, for people.
    """

    kind: str
    parse: Parser | None = None
    capability: int | None = None
    reason: str = ""


_WHOLE_MACHINE = "of the whole machine"
_HARDENING = "hardening of the whole machine; its effect stays the host's"
_ROUTES = "one neighbour table for all"
_TRACK = "one connection table for all in older kernels"

_TIMEOUT = integers(0)
_LIMIT = integers(0)

ROWS: dict[str, Row] = {
    "fs/file-max": Row(STORE, unsigned(), reason=_WHOLE_MACHINE),
    "fs/nr_open": Row(STORE, integers(64, INT_MAX & -64), reason=_WHOLE_MACHINE),
    "fs/protected_hardlinks": Row(STORE, integers(0, 1), reason=_HARDENING),
    "fs/protected_symlinks": Row(STORE, integers(0, 1), reason=_HARDENING),
    "kernel/hostname": Row(UTS),
    "kernel/domainname": Row(UTS),
    "kernel/kptr_restrict": Row(STORE, integers(0, 2), CAP_SYS_ADMIN, _HARDENING),
    "kernel/dmesg_restrict": Row(STORE, integers(0, 1), CAP_SYS_ADMIN, _HARDENING),
    "kernel/ngroups_max": Row(READ),
    "kernel/cap_last_cap": Row(READ),
    "kernel/panic": Row(STORE, integers(), reason=_WHOLE_MACHINE),
    "kernel/panic_on_oops": Row(STORE, integers(), reason=_WHOLE_MACHINE),
    "kernel/printk": Row(STORE, integers(count=4), CAP_SYS_ADMIN, _WHOLE_MACHINE),
    "kernel/sysrq": Row(STORE, integers(0, 511), reason=_WHOLE_MACHINE),
    "kernel/pid_max": Row(PID, integers(301, 1 << 22), reason="one for all before Linux 6.14"),
    "kernel/ns_last_pid": Row(PID),
    "kernel/random/uuid": Row(READ, reason="a new one at every read"),
    "kernel/random/boot_id": Row(CALC, reason="a container starts at another time than its host"),
    "kernel/yama/ptrace_scope": Row(STORE, never_back(integers(0, 3), b"3"), CAP_SYS_PTRACE, _HARDENING),
    "net/core/default_qdisc": Row(
        NET, one_of(b"fq", b"fq_codel", b"sfq", b"pfifo_fast"), reason="one for all; may load a module"
    ),
    "net/core/somaxconn": Row(NET, _LIMIT),
    "net/ipv4/neigh/default/gc_thresh1": Row(NET, _LIMIT, reason=_ROUTES),
    "net/ipv4/neigh/default/gc_thresh2": Row(NET, _LIMIT, reason=_ROUTES),
    "net/ipv4/neigh/default/gc_thresh3": Row(NET, _LIMIT, reason=_ROUTES),
    "net/ipv4/vs/conntrack": Row(NET, integers(0, 1), reason=_TRACK),
    "net/ipv4/vs/conn_reuse_mode": Row(NET, integers(0, 1), reason=_TRACK),
    "net/ipv4/vs/expire_nodest_conn": Row(NET, integers(0, 1), reason=_TRACK),
    "net/ipv4/vs/expire_quiescent_template": Row(NET, integers(0, 1), reason=_TRACK),
    "net/netfilter/nf_conntrack_max": Row(NET, integers(0), reason="the host's, which containers share"),
    "net/netfilter/nf_conntrack_generic_timeout": Row(NET, _TIMEOUT, reason=_TRACK),
    "net/netfilter/nf_conntrack_tcp_timeout_established": Row(NET, _TIMEOUT, reason=_TRACK),
    "net/netfilter/nf_conntrack_tcp_timeout_close_wait": Row(NET, _TIMEOUT, reason=_TRACK),
    "net/netfilter/nf_conntrack_tcp_be_liberal": Row(NET, integers(0, 1), reason=_TRACK),
    "net/netfilter/nf_hooks_lwtunnel": Row(
        STORE, integers(0, 1), reason="one switch for all, which the kernel shows in every namespace"
    ),
    "net/nf_conntrack_max": Row(NET, integers(0), reason="the host's, which containers share"),
    "net/unix/max_dgram_qlen": Row(NET, _LIMIT),
    "vm/overcommit_memory": Row(STORE, integers(0, 2), CAP_SYS_ADMIN, _WHOLE_MACHINE),
    "vm/mmap_min_addr": Row(STORE, unsigned(), reason=_WHOLE_MACHINE),
    "vm/memfd_noexec": Row(PID),
} | {
    f"kernel/{name}": Row(IPC)
    for name in ("auto_msgmni", "msg_next_id", "msgmax", "msgmnb", "msgmni", "sem", "sem_next_id", "shm_next_id",
                 "shm_rmid_forced", "shmall", "shmmax", "shmmni")
}  # fmt: skip

# Directories whose every entry is of that kind; the longest one counts.
BELOW = {"fs/mqueue": IPC, "net": NET, "user": USER}

# Outside /proc/sys.
HASHSIZE = Row(STORE, unsigned(1, UINT_MAX), reason="one table for all")


def row_of(path: str) -> Row | None:
    """The row of a file below /proc/sys; None where it is simply the kernel's, for all machines' containers."""
    row = ROWS.get(path)
    if row is None:
        for prefix, kind in BELOW.items():
            if path.startswith(f"{prefix}/"):
                return Row(kind)
    return row
