"""`sysvisor-fs status`: what is served, and what that costs. Asks the daemon over its control socket."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

from sysvisor_fs.messages import show
from sysvisor_runc.contract.names import CONTROL_SOCKET
from sysvisor_runc.errors import SysvisorError, UsageError, reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sysvisor_fs.contract import ContainerStatus, DaemonStatus

_ANSWER_MAX = 1 << 20
_INTERVAL = 0.5  # seconds over which requests are counted
_PATIENCE = 5.0
_FILES = 10


def main(argv: Sequence[str]) -> int:
    """Print it. `argv`: `--run-dir=DIR`, then what was written behind `status`."""
    run_dir = argv[0].partition("=")[2]
    if list(argv[1:]) not in ([], ["--json"]):
        raise UsageError(f"status: unknown argument {' '.join(argv[1:])!r}", hint="--json is the only one")
    first = ask(run_dir)
    time.sleep(_INTERVAL)
    second = ask(run_dir)
    rates = _rates(first, second)
    if argv[1:]:
        report = {**second, "requestsPerSecond": sum(rates.values())}
        report["containers"] = [{**one, "requestsPerSecond": rates[one["id"]]} for one in second["containers"]]
        show(json.dumps(report, indent=2) + "\n")
    else:
        show("".join(f"{line}\n" for line in lines(second, rates)))
    return 0


def ask(run_dir: str) -> DaemonStatus:
    """The daemon's status.

    Raises:
        SysvisorError: there is none, or it does not answer.
    """
    path = f"{run_dir}/{CONTROL_SOCKET}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as link:
        link.settimeout(_PATIENCE)
        try:
            link.connect(path)
            link.send(b'{"op":"status"}')
            packet = link.recv(_ANSWER_MAX)
        except (FileNotFoundError, ConnectionRefusedError) as error:
            hint = "a launch starts one where it is needed"
            raise SysvisorError(f"no sysvisor-fs serves {run_dir!r}", hint=hint) from error
        except OSError as error:
            raise SysvisorError(f"ask {path!r}: {reason(error)}") from error
    if not packet:
        raise SysvisorError("sysvisor-fs ended without an answer", hint="ask again: another one takes its place")
    answer = json.loads(packet)
    if "error" in answer:
        raise SysvisorError(f"sysvisor-fs: {answer['error']}")
    status: DaemonStatus = answer["status"]
    return status


def _rates(first: DaemonStatus, second: DaemonStatus) -> dict[str, float]:
    before = {one["id"]: one["requests"] for one in first["containers"]}
    return {one["id"]: max(0, one["requests"] - before.get(one["id"], 0)) / _INTERVAL for one in second["containers"]}


def lines(status: DaemonStatus, rates: dict[str, float]) -> Iterable[str]:
    """The status for a person."""
    containers = status["containers"]
    yield (
        f"pid {status['pid']}, for {_duration(time.time() - status['started'])}, {status['requests']} requests, "
        f"{sum(rates.values()):.0f} a second"
    )
    gateway = status["gatewayPid"]
    yield f"gRPC: gateway pid {gateway}" if gateway else "gRPC: nobody has called"
    yield ""
    yield from _table(
        ("CONTAINER", "INIT", "REQUESTS", "PER SECOND"),
        [(one["id"], _init(one), str(one["requests"]), f"{rates[one['id']]:.0f}") for one in containers],
    )
    files = sorted(status["files"], key=lambda one: one["slowest"], reverse=True)[:_FILES]
    if files:
        yield ""
        yield from _table(
            ("SLOWEST FILES", "REQUESTS", "MEAN", "SLOWEST"),
            [
                (one["path"], str(one["requests"]), _time(one["seconds"] / one["requests"]), _time(one["slowest"]))
                for one in files
                if one["requests"]
            ],
        )


def _init(container: ContainerStatus) -> str:
    return str(container["initPid"] or "-")


def _time(seconds: float) -> str:
    return f"{seconds * 1e6:.0f} µs" if seconds < 0.001 else f"{seconds * 1e3:.1f} ms"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterable[str]:
    """Columns side by side, the first one to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()
