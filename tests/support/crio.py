"""A private CRI-O, where the machine has one, with the same image as `tests.support.containerd` has."""

import contextlib
import json
import pathlib
import shutil
import subprocess
from collections.abc import Iterator

from tests.support import leaks
from tests.support.clients import Client, private_daemon, program, remove_cgroups
from tests.support.containerd import IMAGE, docker_archive
from tests.support.runtime import PROGRAM, wait_until

CONFIG = """[crio]
root = "{0}/storage"
runroot = "{0}/run"
storage_driver = "overlay"
log_dir = "{0}/pods"
version_file = "{0}/version"
clean_shutdown_file = "{0}/clean"
[crio.api]
listen = "{0}/engine.sock"
[crio.image]
pause_image = "{1}"
pause_command = ""
signature_policy = "{0}/policy.json"
signature_policy_dir = "{0}/policies"
namespaced_auth_dir = "{0}/auth"
[crio.network]
network_dir = "{0}/cni"
plugin_dirs = ["{2}"]
[crio.nri]
enable_nri = false
[crio.runtime]
cgroup_manager = "cgroupfs"
conmon_cgroup = "pod"
container_exits_dir = "{0}/exits"
container_attach_socket_dir = "{0}/attach"
namespaces_dir = "{0}/namespaces"
hooks_dir = ["{0}/hooks"]
apparmor_profile = "unconfined"
"""
# What it keeps in /run whatever its configuration says.
SETUP = "mkdir -p /run/crio && mount -t tmpfs crio /run/crio && "


@contextlib.contextmanager
def crio(directory: pathlib.Path, plugins: pathlib.Path, handlers: str, setup: str = "") -> Iterator[Client]:
    """CRI-O with directories of its own, and what `sysvisor-runc install --crio` writes beside the table `handlers`.

    `plugins` are CNI's programs, whose configuration is in `directory`; `setup` are shell commands for its namespaces.
    """
    daemon = program("crio", "cri-o, from its own repository")
    for path in (directory, *directory.parents[:2]):
        path.chmod(0o755)
    (directory / "policy.json").write_text(json.dumps({"default": [{"type": "insecureAcceptAnything"}]}))
    for name in ("drop-ins", "hooks"):
        (directory / name).mkdir()
    (directory / "crio.conf").write_text(CONFIG.format(directory, IMAGE, plugins))
    (directory / "drop-ins/10-modes.conf").write_text(handlers)
    ours = directory / "drop-ins/50-sysvisor-runc.conf"
    subprocess.run([PROGRAM, "install", "--crio", "--config", ours], check=True, stdout=subprocess.DEVNULL)
    podman = [program("podman", "podman"), "--storage-driver", "overlay", "--tmpdir", f"{directory}/tmp"]
    podman += ["--root", f"{directory}/storage", "--runroot", f"{directory}/run"]
    load = ["load", "--quiet", "--signature-policy", f"{directory}/policy.json", "-i", str(docker_archive(directory))]
    subprocess.run([*podman, *load], check=True, stdout=subprocess.DEVNULL)
    client = Client(directory, daemon)
    command = [daemon, "--config", f"{directory}/crio.conf", "--config-dir", f"{directory}/drop-ins"]
    with private_daemon(command, directory / "daemon.log", SETUP + setup):
        wait_until((directory / "engine.sock").exists, 60, "CRI-O")
        yield client
    remove_cgroups(client.token)
    wait_until(lambda: not _left(client, directory), 30, "the end of what CRI-O has started")
    shutil.rmtree(directory, ignore_errors=True)


def _left(client: Client, directory: pathlib.Path) -> list[str]:
    return [line for line in leaks.processes(client.token, directory) if "unshare" not in line]
