"""What conmon and containerd's shim, one process for each container, take in memory with a container of our runtime."""

import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.bench.subjects import Subject
from tests.support.clients import Client, private_daemon, remove_cgroups, wrapper
from tests.support.runtime import wait_until

CONMON = "/usr/bin/conmon"
CONTAINERD, CTR, SHIM = "/usr/bin/containerd", "/usr/bin/ctr", "/usr/bin/containerd-shim-runc-v2"
# Of each that many: what they share is then shared as it would be by more.
COUNT = 20
CONFIG = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
  address = "{0}/containerd.sock"
"""


def pss(pid: int) -> int:
    """The proportional set size of a process in bytes."""
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} tells no Pss")


def conmon(subject: Subject, bundle: str, directory: pathlib.Path) -> float | None:
    """KiB PSS of a conmon; None where it is not installed, or does not work."""
    if not os.access(CONMON, os.X_OK):
        return None
    names = [f"{subject.prefix}-conmon-{number}" for number in range(COUNT)]
    root = directory / "conmon"
    root.mkdir()
    try:
        for name in names:
            command = [CONMON, "--api-version", "1", "-c", name, "-u", name, "-b", bundle, "-l", "none"]
            command += ["--full-attach"]
            command += ["-p", str(root / f"{name}.pid"), "-P", str(root / f"{name}.conmon"), "--exit-dir", str(root)]
            command += ["-r", subject.command[0], *(f"--runtime-arg={word}" for word in subject.command[1:])]
            null = subprocess.DEVNULL
            subprocess.run(command, check=True, stdin=null, stdout=null, stderr=null, timeout=60)
        time.sleep(1)
        pids = [int((root / f"{name}.conmon").read_text()) for name in names]
        return sum(map(pss, pids)) / 1024 / len(pids)
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        sys.stderr.write(f"bench: without conmon: {error}\n")
        return None
    finally:
        for name in names:
            subject("delete", "--force", name, allow_failure=True)


def shim(bundle: str, directory: pathlib.Path) -> float | None:
    """KiB PSS of a containerd-shim-runc-v2; None where it is not installed, or does not work."""
    if not all(os.access(path, os.X_OK) for path in (CONTAINERD, CTR, SHIM)):
        return None
    try:
        with _containerd(directory / "containerd") as client:
            runtime = str(wrapper(client.directory, "plain"))
            names = [client.name() for _ in range(COUNT)]
            for name in names:
                where = ("--runc-binary", runtime, "--cgroup", f"/{client.token}/{name}")
                client("run", "--detach", *where, "--rootfs", f"{bundle}/rootfs", name, "sleep", "100000")
            time.sleep(1)
            found = [pss(pid) for pid in _shims(client)]
            if len(found) != len(names):
                raise AssertionError(f"{len(found)} shims for {len(names)} containers")
            return sum(found) / 1024 / len(found)
    except (AssertionError, subprocess.SubprocessError, OSError) as error:
        sys.stderr.write(f"bench: without containerd's shim: {error}\n")
        return None


@contextmanager
def _containerd(directory: pathlib.Path) -> Iterator[Client]:
    """`ctr` with a containerd of its own; afterwards nothing of it is left."""
    directory.mkdir()
    client = Client(directory, CTR, "-a", f"{directory}/containerd.sock")
    (directory / "config.toml").write_text(CONFIG.format(directory))
    argv = [CONTAINERD, "-c", str(directory / "config.toml")]
    with private_daemon(argv, directory / "daemon.log"):
        try:
            wait_until(lambda: client("version", check=False).returncode == 0, 60, "containerd")
            yield client
        finally:
            for name in client("container", "ls", "-q", check=False).stdout.split():
                client("task", "rm", "--force", name, check=False)
                client("container", "rm", name, check=False)
            wait_until(lambda: not _shims(client), 30, "the end of the shims")
    remove_cgroups(client.token)


def _shims(client: Client) -> list[int]:
    """The shims of this containerd's containers: its address is on their command line."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            words = (entry / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0].endswith(b"containerd-shim-runc-v2") and f"{client.directory}/containerd.sock".encode() in words:
            found.append(int(entry.name))
    return found
