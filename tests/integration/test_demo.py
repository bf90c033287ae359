"""The demonstrations that the README promises hold, with and without a terminal."""

import subprocess
import sys

import pexpect
import pytest

from tests.support.runtime import SOURCE
from tools import debian_rootfs


def run_tool(name: str, timeout: float) -> str:
    """The output of a demonstration that must succeed, in which every finding holds."""
    done = subprocess.run(
        [sys.executable, SOURCE / f"tools/{name}.py"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stdout
    assert "✗" not in done.stdout
    return done.stdout


def test_tour_holds() -> None:
    """Without a terminal the demonstration checks the container from inside and outside."""
    shown = run_tool("demo", 60)
    for finding in ("/proc/self/uid_map", "capabilities of root", "mkdir in the cgroup mount", "mount -t tmpfs"):
        assert f"✓ {finding}" in shown


def test_shell_on_a_terminal() -> None:
    """On a terminal the demonstration is a shell of the container's root, and ends with its exit code."""
    child = pexpect.spawn(sys.executable, [str(SOURCE / "tools/demo.py")], timeout=30, encoding="utf-8")
    child.expect_exact("root@")
    child.sendline("echo $(id -u)-$(hostname)-$$")
    child.expect_exact("0-syscont-1\r\n")
    child.sendline("exit 7")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 7


@pytest.mark.slow
@pytest.mark.system
@pytest.mark.debian("systemd")
@pytest.mark.timeout(600)
def test_debian_boots() -> None:
    """A Debian with systemd boots, is healthy, and switches itself off."""
    try:
        debian_rootfs.archive("systemd")
    except RuntimeError as error:
        pytest.skip(f"{error}; to force it: make deps with the Debian archive in reach")
    assert "✓ systemctl is-system-running" in run_tool("demo_systemd", 300)
