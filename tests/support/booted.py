"""A machine whose pid 1 is systemd: its units and journal as tests ask about them."""

import pathlib
import subprocess

from tests.support.runtime import wait_until

BOOTED = pathlib.Path("/run/systemd/system").is_dir() and pathlib.Path("/proc/1/comm").read_text() == "systemd\n"
WHY_NOT = "systemd is not pid 1 here; to force it: tests/kernel/test_uml.py, or a machine booted with it"
UNITS = pathlib.Path("/run/systemd/system")
PATIENCE = 40


def systemctl(*args: str, check: bool = True) -> str:
    done = subprocess.run(["systemctl", "--no-pager", *args], capture_output=True, text=True, timeout=90)
    if check:
        assert done.returncode == 0, f"systemctl {args}: {done.stderr}{status(args[-1])}"
    return done.stdout


def status(unit: str) -> str:
    done = subprocess.run(["systemctl", "--no-pager", "status", unit], capture_output=True, text=True, timeout=60)
    log = subprocess.run(["journalctl", "--no-pager", "-u", unit], capture_output=True, text=True, timeout=60)
    return f"{done.stdout}\n{log.stdout}"


def show(unit: str, *names: str) -> list[str]:
    """Properties of a unit, in the order of `names`."""
    lines = systemctl("show", unit, *(f"--property={name}" for name in names)).splitlines()
    found = dict(line.split("=", 1) for line in lines)
    return [found[name] for name in names]


def unit_cgroup(pid: int | str) -> str:
    """The path of a process in the hierarchy that systemd keeps its units in."""
    for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
        number, names, path = line.split(":", 2)
        if names == "name=systemd" or (number == "0" and not pathlib.Path("/sys/fs/cgroup/systemd").exists()):
            return path
    raise AssertionError("no hierarchy of systemd's")


def wait_journal(unit: str, text: str) -> None:
    def said() -> bool:
        return text in subprocess.run(["journalctl", "--no-pager", "-u", unit], capture_output=True, text=True).stdout

    wait_until(said, PATIENCE, f"{text!r} in the journal")


def wait_state(unit: str, state: str) -> None:
    def reached() -> bool:
        found = show(unit, "ActiveState")
        return found == [state]

    try:
        wait_until(reached, PATIENCE, state)
    except AssertionError:
        raise AssertionError(status(unit)) from None
