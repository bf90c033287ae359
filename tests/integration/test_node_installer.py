"""The node installer of contrib/kubernetes on a node of its own: this machine's root file system under an overlay.

containerd there is a real one; systemd is not, so a script starts and stops it where `systemctl` would.
"""

import contextlib
import http.server
import json
import pathlib
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator

import pytest

from tests.support.containerd import release
from tests.support.engines import PLUGINS
from tests.support.runtime import SOURCE, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.root, pytest.mark.debian("current")]

INSTALLER = SOURCE / "contrib/kubernetes/node_installer.py"
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
CONFIG = "version = {0}\n# the node's own\n"
NODE = """
mount -t tmpfs node {0} && cd {0} && mkdir upper work host && ulimit -n 4096 &&
mount -t overlay node -o lowerdir=/,upperdir={0}/upper,workdir={0}/work host && cd host &&
mount --rbind /dev dev && mount --rbind /sys sys && mount -t proc proc proc &&
mount -t tmpfs run run && mkdir -p var/lib/containerd etc/containerd && mount -t tmpfs var var/lib/containerd &&
cp {1}/programs/* usr/local/bin/ && printf '%s' "$1" > etc/containerd/config.toml && rm -f etc/cni/net.d/* &&
pivot_root . mnt && umount -l mnt && cd / && touch run/set-up && while :; do sleep 0.2; done
"""
SYSTEMCTL = """#!/bin/sh
echo "$@" >> /run/systemctl.log
case "$*" in
"is-active --quiet containerd") kill -0 "$(cat /run/pid)" ;;
"is-active --quiet crio") exit 3 ;;
"restart containerd")
    if [ -e /run/pid ]; then
        kill "$(cat /run/pid)"
        while kill -0 "$(cat /run/pid)" 2>/dev/null; do sleep 0.1; done
    fi
    if [ -e /run/broken ] && grep -q sysvisor /etc/containerd/config.toml; then echo it is broken; exit 1; fi
    setsid containerd >/run/containerd.log 2>&1 </dev/null &
    echo $! >/run/pid ;;
esac
"""


class Labels(http.server.BaseHTTPRequestHandler):
    """The API server's part: notes what nodes are labelled with."""

    noted: list[tuple[str, str | None, object]]

    def do_PATCH(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.noted.append((self.path, self.headers["Authorization"], body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class' name for it
        """Say nothing."""


class Node:
    """A machine to install on.

    Attributes:
        host: its root file system, as it is seen from here.
        labels: what was asked of the API server: path, authorization, body.
        format: of containerd's configuration.
    """

    def __init__(self, directory: pathlib.Path, pid: int, address: str) -> None:
        self.host = pathlib.Path(f"/proc/{pid}/root")
        self.labels: list[tuple[str, str | None, object]] = []
        (directory / "token").write_text("secret\n")
        self._env = {
            "INIT": str(pid),
            "STAGE": f"{directory}/stage",
            "NODE_NAME": "node1",
            "PATH": PATH,
        }
        self.format = 2
        self._env |= {"API_SERVER": address, "SERVICE_ACCOUNT": str(directory)}

    def __call__(self, *args: str, check: bool = True) -> str:
        """Run the installer; what it said."""
        argv = [sys.executable, "-I", str(INSTALLER), *args]
        done = subprocess.run(
            argv, env=self._env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=110
        )
        assert (done.returncode == 0) == check, done.stdout + done.stderr
        return done.stdout + done.stderr

    def systemctl(self, *args: str) -> None:
        enter = ["nsenter", f"--target={self._env['INIT']}", "--mount", "--pid"]
        subprocess.run([*enter, "systemctl", *args], env=self._env, check=True)

    def log(self) -> list[str]:
        """What systemctl was asked to change since the last time."""
        path = self.host / "run/systemctl.log"
        lines = path.read_text().splitlines()
        path.write_text("")
        return [line for line in lines if not line.startswith(("is-active", "status"))]

    @property
    def config(self) -> str:
        return (self.host / "etc/containerd/config.toml").read_text()


@contextlib.contextmanager
def api_server(noted: list[tuple[str, str | None, object]]) -> Iterator[str]:
    handler = type("Handler", (Labels,), {"noted": noted})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(params=["", "2"], ids=["installed", "2"])
def node(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[Node]:
    """A node with containerd as this machine has it, or of another release."""
    chosen = release(request.param, tmp_path)
    chosen.program("containerd")
    (tmp_path / "programs").mkdir(exist_ok=True)
    stage = ["make", "install", f"DESTDIR={tmp_path}/stage", "PREFIX=/usr/local"]
    subprocess.run(stage, cwd=SOURCE, check=True, stdout=subprocess.DEVNULL)
    (tmp_path / "node").mkdir()
    (tmp_path / "programs/systemctl").write_text(SYSTEMCTL)
    (tmp_path / "programs/systemctl").chmod(0o755)
    script = NODE.format(tmp_path / "node", tmp_path)
    unshare = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--propagation", "private"]
    config = CONFIG.format(chosen.format)
    with open(tmp_path / "node.log", "wb") as log:
        holder = subprocess.Popen([*unshare, "sh", "-c", script, "sh", config], stdout=log, stderr=log)
    try:
        children = pathlib.Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
        wait_until(lambda: children.read_text().split() or holder.poll() is not None, 30, "the node's first process")
        labels: list[tuple[str, str | None, object]] = []
        with api_server(labels) as address:
            made = Node(tmp_path, int(children.read_text().split()[0]), address)
            made.labels = labels
            made.format = chosen.format
            wait_until((made.host / "run/set-up").exists, 30, "the node")
            made.systemctl("restart", "containerd")
            made.log()
            yield made
    finally:
        holder.kill()  # with it the first process, and so all of the node's
        holder.wait()


def test_a_node_gets_the_runtime_and_loses_it(node: Node) -> None:
    """Files, service, configuration and label; again without a restart; taken back where the engine does not bear it,
    and not while containers are there."""
    said = node("install")
    runtimes = tomllib.loads(node.config)["plugins"][PLUGINS[node.format]]["containerd"]["runtimes"]
    assert runtimes["sysvisor-runc"]["options"] == {"BinaryName": "/usr/local/sbin/sysvisor-runc"}
    assert "user namespaces" in said  # what `doctor` has found
    service = ["daemon-reload", "enable sysvisor-fs.service", "restart sysvisor-fs.service"]
    assert node.log() == [*service, "restart containerd"]
    told = {"metadata": {"labels": {"sysvisor.org/ready": "true"}}}
    assert node.labels == [("/api/v1/nodes/node1", "Bearer secret", told)]
    assert "nothing to change" in node("install")
    assert node.log() == service
    # Killed between the change and the restart: the next one makes up for it.
    (node.host / "run/sysvisor-runc-installer.restart").touch()
    node("install")
    assert "restart containerd" in node.log()
    # A container of ours, and one of another runtime's.
    for name, state in (("one", {"initPid": 1}), ("two", {"init_process_pid": 1})):
        directory = node.host / "run/containerd/runc/k8s.io" / name
        directory.mkdir(parents=True)
        (directory / "state.json").write_text(json.dumps(state))
    assert "1 containers of the runtime are on this node (one" in node("uninstall", check=False)
    assert "sysvisor-runc" in node.config
    (node.host / "run/containerd/runc/k8s.io/one/state.json").unlink()
    (node.host / "var/lib/sysvisorfs").mkdir(exist_ok=True)  # as sysvisor-fs makes it
    node("uninstall")
    assert not (node.host / "var/lib/sysvisorfs").exists()
    assert node.labels[-1][2] == {"metadata": {"labels": {"sysvisor.org/ready": None}}}
    assert node.config.rstrip() == CONFIG.format(node.format).rstrip()
    assert "restart containerd" in node.log()
    assert not list((node.host / "usr/local").glob("*/*sysvisor*"))
    assert "nothing is installed" in node("uninstall")
    (node.host / "run/broken").touch()
    assert "it is broken" in node("install", check=False)
    assert node.config.rstrip() == CONFIG.format(node.format).rstrip()
    assert node.log()[-2:] == ["restart containerd", "restart containerd"]
    assert "sysvisor.org/ready" not in node("uninstall").replace("no sysvisor.org/ready", "")
