"""`ps`: which processes it shows, and how."""

import os
import re

from tests.support.handmade import container
from tests.support.runtime import Runtime


def test_the_table_is_that_of_ps(runtime: Runtime) -> None:
    """Header, user, and every process of the container and none else."""
    with container(runtime) as one:
        second = one.spawn("/bin/sleep", "999")
        header, *lines = runtime("ps", one.id).stdout.splitlines()
    assert re.fullmatch(r"UID +PID +PPID +C +STIME +TTY +TIME +CMD", header)
    assert {int(line.split()[1]) for line in lines} == {one.init.pid, second.pid}
    assert all(line.startswith("root ") for line in lines)
    assert any(line.endswith("/bin/sleep 999") for line in lines)


def test_json_lists_pids(runtime: Runtime) -> None:
    """As one line."""
    with container(runtime) as one:
        assert runtime("ps", "-f", "json", one.id).stdout == f"[{one.init.pid}]\n"


def test_options_go_to_the_ps_of_the_host(runtime: Runtime) -> None:
    """Everything behind the id, even what looks like a flag of ours."""
    with container(runtime) as one:
        header, line = runtime("ps", one.id, "-e", "-x").stdout.splitlines()
        assert header.split()[:5] == ["PID", "TTY", "STAT", "TIME", "COMMAND"]
        assert line.split()[0] == str(one.init.pid)
        assert "ppid" in runtime("ps", one.id, "-eo", "pid,ppid=ppid").stdout


def test_bad_options_for_ps(runtime: Runtime) -> None:
    """Its own complaint is passed on; a table without pids cannot be filtered."""
    with container(runtime) as one:
        assert "failed with status" in runtime.fails("ps", one.id, "--no-such-option").stderr
        assert "couldn't find PID field" in runtime.fails("ps", one.id, "-eo", "args").stderr
        environment = os.environ | {"PATH": "/nonexistent"}
        assert "install procps" in runtime.fails("ps", one.id, "-e", env=environment).stderr
        assert runtime("ps", one.id, env=environment).stdout.count("\n") == 2


def test_processes_in_cgroups_of_the_container_are_shown(runtime: Runtime) -> None:
    """A service manager inside makes cgroups below the container's own."""
    with container(runtime) as one:
        deep = one.spawn()
        for path in one.manager.directories():
            os.mkdir(f"{path}/below")
            for name in ("cpuset.cpus", "cpuset.mems"):
                if os.path.exists(f"{path}/{name}") and "cpuset/" in path:
                    with open(f"{path}/{name}") as source, open(f"{path}/below/{name}", "w") as target:
                        target.write(source.read())
            with open(f"{path}/below/cgroup.procs", "w") as file:
                file.write(str(deep.pid))
        assert sorted(runtime("ps", "-f", "json", one.id).json) == sorted([one.init.pid, deep.pid])


def test_a_stopped_container_has_no_processes(runtime: Runtime) -> None:
    """It is no error to ask."""
    with container(runtime) as one:
        one.end_init()
        assert len(runtime("ps", one.id).stdout.splitlines()) == 1
        assert runtime("ps", "-f", "json", one.id).stdout == "null\n"
        one.manager.remove()
        assert len(runtime("ps", one.id).stdout.splitlines()) == 1
