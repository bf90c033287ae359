"""A private containerd, and the image that it runs: `ctr` for a person, the CRI for a kubelet."""

import contextlib
import hashlib
import json
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator

import pytest

from tests.support import debian, leaks
from tests.support.clients import Client, image_tar, private_daemon, program, remove_cgroups
from tests.support.runtime import PROGRAM, wait_until

NAMES = ("containerd", "ctr")
IMAGE = "docker.io/local/box:latest"
# What the image runs unless told otherwise: nothing, until it is asked to end.
COMMAND = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"]
CONFIG = """version = {1}
root = "{0}/root"
state = "{0}/state"
disabled_plugins = [{2}]
[grpc]
  address = "{0}/engine.sock"
[plugins."io.containerd.internal.v1.opt"]
  path = "{0}/opt"
"""
# What containerd 2 has beside it, and where that keeps its socket.
NRI = """[plugins."io.containerd.nri.v1.nri"]
  socket_path = "{0}/nri.sock"
"""
# The releases that there are tests with, by the Debian (`tools.debian_rootfs`) that has them, '' being this machine's.
RELEASES = {"1.7": "criu", "2": "current"}


class Release:
    """One release of containerd.

    Attributes:
        format: the version of its configuration.
        programs: the directory that it is in, '' for where the machine has its programs.
    """

    def __init__(self, programs: str = "", format: int = 2) -> None:  # noqa: A002 - configuration calls it so
        self.programs = programs
        self.format = format

    def program(self, name: str) -> str:
        """The path of one of its programs."""
        return f"{self.programs}/{name}" if self.programs else program(name, "containerd")


def release(name: str, directory: pathlib.Path) -> Release:
    """containerd as this machine has it for '', else the release of a newer Debian at `directory`; skips likewise."""
    if not name:
        return Release()
    programs = debian.programs(RELEASES[name], directory / "programs", "containerd-shim-runc-v2", *NAMES)
    if subprocess.run([programs / NAMES[0], "--version"], stdin=subprocess.DEVNULL, capture_output=True).returncode:
        pytest.skip(f"containerd {name} does not run here; to force it: a C library as new as its Debian's")
    return Release(str(programs), 2 if name.startswith("1.") else 3)


def docker_archive(directory: pathlib.Path) -> pathlib.Path:
    """The image as `docker save` writes it: two layers, a configuration and a manifest."""
    layer = image_tar(directory)
    top = directory / "archive"
    top.mkdir()
    shutil.copy(layer, top / "layer1.tar")
    (directory / "second").write_text("second\n")
    with tarfile.open(top / "layer2.tar", "w") as archive:
        archive.add(directory / "second", arcname="second")
    digests = ["sha256:" + hashlib.sha256((top / f"layer{n}.tar").read_bytes()).hexdigest() for n in (1, 2)]
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": COMMAND},
        "rootfs": {"type": "layers", "diff_ids": digests},
    }
    (top / "config.json").write_text(json.dumps(config))
    manifest = [{"Config": "config.json", "RepoTags": [IMAGE], "Layers": ["layer1.tar", "layer2.tar"]}]
    (top / "manifest.json").write_text(json.dumps(manifest))
    path = directory / "archive.tar"
    with tarfile.open(path, "w") as archive:
        for file in sorted(top.iterdir()):
            archive.add(file, arcname=file.name)
    return path


@contextlib.contextmanager
def containerd(
    directory: pathlib.Path, namespace: str, release: Release, config: str = "", setup: str = ""
) -> Iterator[Client]:
    """containerd with directories of its own; the client is `ctr` in one of its namespaces, where the image is.

    `config` is for the CRI, which is off without; `setup` are shell commands for its namespaces. What is left of tasks
    and containers in the end is removed.
    """
    for path in (directory, *directory.parents[:2]):
        path.chmod(0o755)
    daemon, ctr = (release.program(name) for name in NAMES)
    client = Client(directory, ctr, "-a", f"{directory}/engine.sock", "-n", namespace)
    file = directory / "config.toml"
    disabled = "" if config else '"io.containerd.grpc.v1.cri"'
    own = NRI if release.format > 2 else ""
    file.write_text((CONFIG + own).format(directory, release.format, disabled) + config)
    if config:
        subprocess.run([PROGRAM, "install", "--containerd", "--config", file], check=True, stdout=subprocess.DEVNULL)
    if release.programs:
        setup = f"PATH={release.programs}:$PATH; {setup}"  # its shim, too
    with private_daemon([daemon, "-c", str(file)], directory / "daemon.log", setup):
        wait_until(lambda: client("version", check=False).returncode == 0, 60, "containerd")
        client("image", "import", str(docker_archive(directory)))
        try:
            yield client
        finally:
            for name in client("container", "ls", "-q", check=False).stdout.split():
                client("task", "rm", "--force", name, check=False)
                client("container", "rm", name, check=False)
    remove_cgroups(client.token)
    wait_until(lambda: not _left(client, directory), 30, "the end of what containerd has started")
    shutil.rmtree(directory, ignore_errors=True)


def _left(client: Client, directory: pathlib.Path) -> list[str]:
    return [line for line in leaks.processes(client.token, directory) if "unshare" not in line]
