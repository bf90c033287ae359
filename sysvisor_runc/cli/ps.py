"""`sysvisor-runc ps`: the processes of a container, as a table or as a JSON list of their ids.

The usual table is read from /proc. The host's `ps` is started only when options for it are given; its lines are
filtered by the PID column, as runc does.
"""

from __future__ import annotations

import os
import sys

from sysvisor_runc.cli.list import user_name
from sysvisor_runc.errors import StateError, SysvisorError, reason
from sysvisor_runc.jsonlight import dumps
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.state.record import Record


def run(options: Options) -> int:
    with Store(options.globals.root).open(options.args[0]) as entry:
        record = entry.load()
    pids = processes(record)
    arguments = options.args[1:]
    if options.text("format") == "json":
        sys.stdout.write((dumps(pids) if pids else "null") + "\n")
    elif arguments:
        sys.stdout.write(keep(host_ps(arguments), pids))
    else:
        from sysvisor_runc.state.proctable import table

        sys.stdout.write(table(pids, lambda uid: user_name(uid).removeprefix("#")))
    return 0


def processes(record: Record) -> list[int]:
    """The container's processes, those in cgroups of its own included; none where it has stopped."""
    from sysvisor_runc.cgroup.manager import Manager

    if not record["cgroup"]["paths"]:
        raise StateError(f"container {record['id']!r} has no cgroup, so its processes cannot be told from others")
    return Manager(record["cgroup"]["paths"]).pids()


def host_ps(arguments: list[str]) -> str:
    """What `ps` of the host prints with these arguments.

    Raises:
        SysvisorError: it is not installed, or failed.
    """
    reader, writer = os.pipe()
    actions = [(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2)]
    try:
        pid = os.posix_spawnp("ps", ["ps", *arguments], os.environ, file_actions=actions)
    except OSError as error:
        os.close(reader)
        raise SysvisorError(f"cannot run ps: {reason(error)}", hint="install procps, or leave out the options for ps")
    finally:
        os.close(writer)
    with open(reader, "rb") as pipe:
        output = pipe.read().decode("utf-8", "replace")
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise SysvisorError(f"ps {' '.join(arguments)} failed with status {code}: {output.strip()}")
    return output


def keep(output: str, pids: list[int]) -> str:
    """The header of a ps table and its lines about `pids`.

    Raises:
        SysvisorError: there is no PID column, or something else in it.
    """
    header, *lines = output.splitlines() or [""]
    titles = header.split()
    if "PID" not in titles:
        raise SysvisorError("couldn't find PID field in ps output", hint="choose ps options that show the PID")
    column = titles.index("PID")
    wanted = {str(pid) for pid in pids}
    kept = [header]
    for line in lines:
        fields = line.split()
        if len(fields) > column and not fields[column].isdigit():
            raise SysvisorError(
                f"unable to parse pid {fields[column]!r} in ps output", hint="columns with blanks must follow the PID"
            )
        if len(fields) > column and fields[column] in wanted:
            kept.append(line)
    return "\n".join(kept) + "\n"
