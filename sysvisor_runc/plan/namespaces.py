"""The namespaces of config.json and the kernel's names for them. Pure."""

from __future__ import annotations

from sysvisor_runc.kernel import namespaces as ns

# type in config.json: (flag, file below /proc/PID/ns)
NAMESPACES = {
    "network": (ns.CLONE_NEWNET, "net"),
    "ipc": (ns.CLONE_NEWIPC, "ipc"),
    "uts": (ns.CLONE_NEWUTS, "uts"),
    "cgroup": (ns.CLONE_NEWCGROUP, "cgroup"),
    "time": (ns.CLONE_NEWTIME, "time"),
    "pid": (ns.CLONE_NEWPID, "pid"),
    "mount": (ns.CLONE_NEWNS, "mnt"),
    "user": (ns.CLONE_NEWUSER, "user"),
}
