"""CVE-2025-52881, CVE-2019-16884: what is written on a container's behalf goes to procfs, whatever lies over it."""

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime

CORE = pathlib.Path("/proc/sys/kernel/core_pattern")


def test_a_sysctl_under_a_cover(plain_runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """With a volume over /proc/sys the value still reaches the kernel, and no file of the volume."""
    bundle = new_bundle("/bin/sleep", "100")
    cover = bundle.path / "cover/kernel"
    cover.mkdir(parents=True)
    (cover / "msgmax").write_text("untouched")
    source = str(cover.parent)
    bundle.config["mounts"].append(
        {"destination": "/proc/sys", "type": "bind", "source": source, "options": ["bind", "rw"]}
    )
    bundle.linux["sysctl"] = {"kernel.msgmax": "12345"}
    bundle.linux["readonlyPaths"] = bundle.linux["maskedPaths"] = []
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", bundle.save().path, name)
    assert (cover / "msgmax").read_text() == "untouched"
    join = ["nsenter", f"--ipc=/proc/{plain_runtime.state(name)['pid']}/ns/ipc", "cat", "/proc/sys/kernel/msgmax"]
    assert subprocess.run(join, capture_output=True, text=True, check=True).stdout.strip() == "12345"


@pytest.mark.parametrize(
    "key",
    [
        "net/../../sysrq-trigger",
        "net/../kernel/core_pattern",
        "net.ipv4/../../kernel/sysrq",
        "kernel/../kernel/sysrq",
        "kernel.sysrq",
        "kernel.core_pattern",
        "net//../vm/drop_caches",
    ],
)
@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_sysctls_of_the_host(request: pytest.FixtureRequest, bundle: Bundle, key: str, kind: str) -> None:
    """A key that climbs, or names what is the host's, is refused before anything is made."""
    runtime: Runtime = request.getfixturevalue(kind)
    before = CORE.read_text()
    bundle.linux["sysctl"] = {key: "1"}
    runtime.fails("run", "--bundle", bundle.save().path, runtime.id())
    assert CORE.read_text() == before


def test_a_system_container_changes_nothing_of_the_host(runtime: Runtime, bundle: Bundle) -> None:
    """Root of a system container writes to every file below /proc/sys and to the dangerous ones; the host keeps its
    values."""
    files = [
        os.path.join(top, name)
        for top, _, names in os.walk("/proc/sys")
        for name in names
        # What is of a namespace of the container's own is his to change; the last and counters change by themselves.
        if not top.startswith(("/proc/sys/net", "/proc/sys/user", "/proc/sys/fs/mqueue", "/proc/sys/kernel/random"))
        and name not in ("ns_last_pid", "inode-nr", "file-nr", "inode-state", "dentry-state", "aio-nr", "nr_threads")
        and not (top.endswith("/pty") and name == "nr")
    ]

    def values() -> dict[str, bytes]:
        found = {}
        for file in files:
            try:
                with open(file, "rb") as opened:
                    found[file] = opened.read()
            except OSError:
                continue
        return found

    before = values()
    bundle.sh(
        "for f in $(find /proc/sys -type f | grep -v -e /net/ -e /user/ -e /mqueue/); do echo 1 >$f; done 2>/dev/null;"
        "echo h >/proc/sysrq-trigger && echo got-sysrq;"
        "echo '|/evil' >/proc/sys/kernel/core_pattern && echo got-core;"
        "echo 1 >/proc/sys/vm/drop_caches && echo got-vm;"
        "echo /evil >/sys/kernel/uevent_helper && echo got-uevent;"
        "echo mem >/sys/power/state && echo got-power;"
        "cat /dev/kmsg; mount -t debugfs x /mnt && echo got-debugfs; true"
    )
    result = runtime("run", "--bundle", bundle.path, runtime.id(), timeout=60)
    assert "got-" not in result.stdout and result.stdout == ""
    after = values()
    assert {file: after[file] for file in before if after.get(file) != before[file]} == {}


def test_keys_of_the_host_are_not_seen(runtime: Runtime, bundle: Bundle) -> None:
    """A system container has a session keyring of its own and sees none of the caller's keys."""
    import ctypes

    numbers = {"x86_64": 248, "aarch64": 217}
    description = f"{runtime.token}-key".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    added = libc.syscall(numbers[os.uname().machine], b"user", description, b"secret", 6, -3)
    if added < 0:
        pytest.skip("this kernel keeps no keys for us; to force it: CONFIG_KEYS, and no filter around the tests")
    assert description.decode() in pathlib.Path("/proc/keys").read_text()
    found = runtime("run", "--bundle", bundle.run("/bin/cat", "/proc/keys").path, runtime.id()).stdout
    assert description.decode() not in found
