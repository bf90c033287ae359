"""Real clients on private daemons: Docker, containerd and Podman with data directories and a network of their own.

Each daemon lives in a mount and a network namespace of its own, so the host's bridges, filters and configuration stay
as they are, and its containers in a cgroup that bears our token, which goes at the end.
"""

import contextlib
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator

import pytest

from tests.support import leaks
from tests.support.runtime import PROGRAM, Result, wait_until
from tools import busybox_rootfs

# What `--runtime` is told for a plain container and for a system container.
MODES = {"plain": ["--no-syscont", "--no-sysvisor-fs"], "syscont": ["--no-sysvisor-fs"]}
IMAGE = "box"
PATIENCE = 60


def program(name: str, package: str) -> str:
    """The path of a program of Debian's, or the test is skipped."""
    found = shutil.which(name, path="/usr/bin:/usr/sbin:/bin:/sbin")
    if found is None:
        pytest.skip(f"no {name}; to force it: apt-get install {package}")
    return found


class Client:
    """Runs one client's commands; `mode` chooses how our runtime makes containers."""

    def __init__(self, directory: pathlib.Path, *command: str) -> None:
        self.directory = directory
        self.command = list(command)
        self.token = f"svt-{secrets.token_hex(4)}"
        self.env = dict(os.environ)
        self._count = 0

    def __call__(self, *args: str, check: bool = True, timeout: float = PATIENCE, text: str = "") -> Result:
        """Run a command to its end, with `text` as its standard input; its output as text."""
        argv = [*self.command, *args]
        with tempfile.TemporaryFile() as stdin, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            stdin.write(text.encode())
            stdin.seek(0)
            code = subprocess.run(argv, stdin=stdin, stdout=out, stderr=err, env=self.env, timeout=timeout).returncode
            printed = []
            for file in (out, err):
                file.seek(0)
                printed.append(file.read().decode(errors="replace"))
        result = Result(argv, code, *printed)
        if check:
            assert code == 0, repr(result)
        return result

    def out(self, *args: str) -> str:
        """What a command prints, stripped."""
        return self(*args).stdout.strip()

    def name(self) -> str:
        """A fresh container name."""
        self._count += 1
        return f"{self.token}-{self._count}"


def image_tar(directory: pathlib.Path) -> pathlib.Path:
    """An archive with a busybox root file system to import as an image."""
    busybox_rootfs.make(directory / "image")
    (directory / "image/etc/changed").write_text("old\n")
    (directory / "image/etc/removed").write_text("to be removed\n")
    os.chown(directory / "image/home", 1000, 1000)
    path = directory / "image.tar"
    with tarfile.open(path, "w") as archive:
        archive.add(directory / "image", arcname=".")
    return path


def wrapper(directory: pathlib.Path, mode: str) -> pathlib.Path:
    """A program that is our runtime in one mode, for clients that cannot give it arguments."""
    path = directory / f"runtime-{mode}"
    path.write_text(f'#!/bin/sh\nexec {PROGRAM} {" ".join(MODES[mode])} "$@"\n')
    path.chmod(0o755)
    return path


@contextlib.contextmanager
def private_daemon(argv: list[str], log: pathlib.Path, setup: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A daemon in a mount and a network namespace of its own, after the shell commands `setup`; ended by SIGTERM."""
    script = f'PATH=$PATH:/usr/sbin:/sbin; export PATH; ip link set lo up; {setup} exec "$@"'
    with log.open("wb") as output:
        command = ["unshare", "--mount", "--net", "--propagation", "private", "sh", "-c", script, "sh", *argv]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
        )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(PATIENCE)


def remove_cgroups(token: str) -> None:
    """Remove what a client leaves of empty cgroups under our token; a busy one is an error."""
    for top in leaks.cgroups(token):
        wait_until(lambda top=top: _remove_tree(top), 30, f"removing {top}")  # type: ignore[misc]  # bound right here


def _remove_tree(top: str) -> bool:
    gone = [_rmdir(directory) for directory, _, _ in os.walk(top, topdown=False)]
    return all(gone)


def _rmdir(path: str) -> bool:
    try:
        os.rmdir(path)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


@contextlib.contextmanager
def docker_daemon(directory: pathlib.Path, default: str, *, remap: bool = False) -> Iterator[Client]:
    """Docker with our runtime in both modes, `default` for what names none; its image is `box`."""
    client = Client(directory, program("docker", "docker.io"), "-H", f"unix://{directory}/docker.sock")
    client.env |= {"DOCKER_CONFIG": str(directory / "config"), "DOCKER_BUILDKIT": "0"}
    config = {
        "data-root": str(directory / "data"),
        "exec-root": str(directory / "exec"),
        "pidfile": str(directory / "docker.pid"),
        "hosts": [f"unix://{directory}/docker.sock"],
        "cgroup-parent": f"/{client.token}",
        "runtimes": {mode: {"path": str(PROGRAM), "runtimeArgs": flags} for mode, flags in MODES.items()},
        "default-runtime": default,
        **({"userns-remap": "nobody:nogroup"} if remap else {}),
    }
    file = directory / "daemon.json"
    file.write_text(json.dumps(config))
    setup = ""
    if remap:
        (directory / "subid").write_text("nobody:200000:65536\nnogroup:200000:65536\n")
        setup = "".join(f"mount --bind {directory}/subid /etc/{name} && " for name in ("subuid", "subgid"))
    argv = [program("dockerd", "docker.io"), "--config-file", str(file)]
    with private_daemon(argv, directory / "daemon.log", setup) as daemon:
        try:
            wait_until(lambda: client("info", check=False).returncode == 0, PATIENCE, "dockerd")
            client("import", str(image_tar(directory)), IMAGE)
            client.env["SVT_DAEMON"] = str(daemon.pid)
            yield client
        finally:
            left = client("ps", "--all", "--quiet", check=False).stdout.split()
            if left:
                client("rm", "--force", *left, check=False)
    remove_cgroups(client.token)
    assert [line for line in leaks.processes(client.token, directory) if "unshare" not in line] == []
    shutil.rmtree(directory, ignore_errors=True)
