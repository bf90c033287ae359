"""The engines that pods are tested with, each with its CRI, a network, and handlers for both modes."""

import contextlib
import json
import pathlib
from collections.abc import Iterator

from tests.support.clients import MODES, program, wrapper
from tests.support.containerd import IMAGE, Release, containerd, release
from tests.support.cri import Cri
from tests.support.crio import crio

# What the formats of the configuration call the CRI, and how its table begins, with the sandbox's image.
PLUGINS = {2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime"}
BEGINNINGS = {
    2: """[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{image}"
""",
    3: """[plugins."io.containerd.cri.v1.images".pinned_images]
  sandbox = "{image}"
[plugins."io.containerd.cri.v1.runtime"]
""",
}
# Where the network's plugins are; deprecated since 2.1 in the singular.
BIN_DIR = {2: 'bin_dir = "{plugins}"', 3: 'bin_dirs = ["{plugins}"]'}
# No handler named runc, which `sysvisor-runc install --containerd` has to bring: it is the default.
CONFIG = """  restrict_oom_score_adj = true
[plugins."{cri}".cni]
  {bin_dir}
  conf_dir = "{directory}/cni"
"""
HANDLER = """
[plugins."{cri}".containerd.runtimes.{name}]
  runtime_type = "io.containerd.runc.v2"
  pod_annotations = ["org.sysvisor.*"]
[plugins."{cri}".containerd.runtimes.{name}.options]
  BinaryName = "{binary}"
"""
# Containers find each other by addresses of this network, which ends with the daemon's network namespace.
NETWORK = {
    "type": "bridge",
    "bridge": "pods0",
    "isGateway": True,
    "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.77.0.0/24"}]]},
}
# Where CNI's network namespaces are pinned.
SETUP = "mkdir -p /run/netns && mount -t tmpfs netns /run/netns && "


CRIO_HANDLER = """
[crio.runtime.runtimes.{name}]
runtime_path = "{binary}"
runtime_type = "oci"
runtime_root = "{directory}/{name}"
"""


@contextlib.contextmanager
def engine(name: str, directory: pathlib.Path) -> Iterator[Cri]:
    """The CRI of a release of containerd ('' is the machine's), or of `crio`; the pods that are left go with it."""
    plugins = _network(directory)
    if name == "crio":
        handlers = [CRIO_HANDLER.format(name=m, binary=wrapper(directory, m), directory=directory) for m in MODES]
        running = crio(directory, plugins, "".join(handlers), SETUP)
    else:
        chosen = release(name, directory)
        running = containerd(directory, "k8s.io", chosen, _configuration(directory, chosen, plugins), SETUP)
    with running as client, Cri(client) as cri:
        yield cri
        for pod in cri("ListPodSandbox").get("items", []):
            cri("RemovePodSandbox", pod_sandbox_id=pod["id"])


def _network(directory: pathlib.Path) -> pathlib.Path:
    """Where CNI's programs are; their configuration goes into `directory`."""
    plugins = pathlib.Path(program("/usr/lib/cni/bridge", "containernetworking-plugins")).parent
    (directory / "cni").mkdir()
    ipam = {**NETWORK["ipam"], "dataDir": str(directory / "addresses")}  # type: ignore[dict-item]  # one of several types
    network = {"cniVersion": "0.4.0", "name": "pods", "plugins": [{**NETWORK, "ipam": ipam}]}
    (directory / "cni/10-pods.conflist").write_text(json.dumps(network))
    return plugins


def _configuration(directory: pathlib.Path, chosen: Release, plugins: pathlib.Path) -> str:
    """The CRI's part of config.toml."""
    names = {"cri": PLUGINS[chosen.format], "image": IMAGE, "plugins": plugins, "directory": directory}
    handlers = [HANDLER.format(**names, name=mode, binary=wrapper(directory, mode)) for mode in MODES]
    head = BEGINNINGS[chosen.format] + CONFIG.replace("{bin_dir}", BIN_DIR[chosen.format])
    return head.format(**names) + "".join(handlers)
