"""Names and numbers of the contract between runtime and sysvisor-fs, for both ends. Imports nothing.

The messages beside this file are generated from proto/ by `make proto`.
"""

from __future__ import annotations

# The sockets are in this directory, which is root's alone.
RUN_DIR = "/run/sysvisor"
RUN_DIR_VARIABLE = "SYSVISOR_FS_RUN_DIR"
GRPC_SOCKET = "sysvisorfs.sock"
CONTROL_SOCKET = "control.sock"
METRICS_SOCKET = "metrics.sock"
LOG_FILE = "sysvisor-fs.log"

MOUNTPOINT = "/var/lib/sysvisorfs"

# One service, called by four names since 2019. The first one answers to all that is in the contract's latest version.
SERVICES = (
    "protobuf.sysvisorStateChannel",
    "protobuf.sysboxStateChannel",
    "sysvisor_protobuf.sysvisorStateChannel",
    "sysvisor_protobuf.ContainerStateChannel",
)

# Where daemons of 2019 listened, on every interface.
TCP_PORT = 50052

DEADLINE = 3.0  # seconds that a call may take

# What one packet on the control socket may hold: a request, or its answer.
PACKET_MAX = 1 << 16


def signed(number: int) -> int:
    """An unsigned id as the contract's int32 fields carry it."""
    return number - (1 << 32) if number >= 1 << 31 else number


def unsigned(number: int) -> int:
    """What an int32 field means."""
    return number & 0xFFFFFFFF
