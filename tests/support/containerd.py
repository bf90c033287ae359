"""A private containerd, and the image that it runs: `ctr` for a person, the CRI for a kubelet."""

import contextlib
import hashlib
import json
import pathlib
import shutil
import subprocess
import tarfile
from collections.abc import Iterator

from tests.support import leaks
from tests.support.clients import Client, image_tar, private_daemon, program, remove_cgroups
from tests.support.runtime import PROGRAM, wait_until

NAMES = ("containerd", "ctr")
IMAGE = "docker.io/local/box:latest"
# What the image runs unless told otherwise: nothing, until it is asked to end.
COMMAND = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"]
CONFIG = """version = 2
root = "{0}/root"
state = "{0}/state"
disabled_plugins = [{1}]
[grpc]
  address = "{0}/containerd.sock"
"""


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
    directory: pathlib.Path, namespace: str, config: str = "", setup: str = "", programs: str = ""
) -> Iterator[Client]:
    """containerd with directories of its own; the client is `ctr` in one of its namespaces, where the image is.

    `config` is for the CRI, which is off without; `setup` are shell commands for its namespaces; `programs` is a
    directory that has another containerd than Debian's. What is left of tasks and containers in the end is removed.
    """
    for path in (directory, *directory.parents[:2]):
        path.chmod(0o755)
    daemon, ctr = (f"{programs}/{name}" if programs else program(name, "containerd") for name in NAMES)
    client = Client(directory, ctr, "-a", f"{directory}/containerd.sock", "-n", namespace)
    file = directory / "config.toml"
    disabled = "" if config else '"io.containerd.grpc.v1.cri"'
    file.write_text(CONFIG.format(directory, disabled) + config)
    if config:
        subprocess.run([PROGRAM, "install", "--containerd", "--config", file], check=True, stdout=subprocess.DEVNULL)
    if programs:
        setup = f"PATH={programs}:$PATH; {setup}"  # its shim, too
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
