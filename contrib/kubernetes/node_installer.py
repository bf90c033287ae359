#!/usr/bin/python3
"""Puts sysvisor-runc on a Kubernetes node and takes it away again; runs in a pod of the DaemonSet.

node_installer.py install|uninstall [--stay]

    --stay  then wait for SIGTERM, as the program of a DaemonSet does; /run/ready is there once all is done

The node is where its first process is: $INIT (1), so the pod needs hostPID. What is to be installed is below $STAGE
(/stage). $ENGINE is containerd,
crio or auto, $CONFIG the file that tells it of runtimes, if not the usual one. With $PACKAGES=apt what is missing on
the node is installed there. The node $NODE_NAME gets the label sysvisor.org/ready=true; without the variable it is
left alone. Needs nothing but Python.
"""

import contextlib
import json
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import sys
import time
import urllib.request

INIT = os.environ.get("INIT", "1")
HOST = pathlib.Path(f"/proc/{INIT}/root")
STAGE = pathlib.Path(os.environ.get("STAGE", "/stage"))
ENGINE = os.environ.get("ENGINE", "auto")
CONFIG = os.environ.get("CONFIG", "")
NODE = os.environ.get("NODE_NAME", "")
# There from before the engine's file is changed until the engine has read it, lest being killed between leave it so.
PENDING = HOST / "run/sysvisor-runc-installer.restart"
READY = pathlib.Path("/run/ready")
ACCOUNT = pathlib.Path(os.environ.get("SERVICE_ACCOUNT", "/var/run/secrets/kubernetes.io/serviceaccount"))
LABEL = "sysvisor.org/ready"

PREFIX = "usr/local"
PROGRAM = f"/{PREFIX}/sbin/sysvisor-runc"
SERVICE = "sysvisor-fs.service"
LIBRARY = f"{PREFIX}/lib/sysvisor-runc"
MOUNTPOINT = "var/lib/sysvisorfs"
FILES = (f"{PREFIX}/sbin/sysvisor-runc", f"{PREFIX}/sbin/sysvisor-fs", f"{PREFIX}/lib/systemd/system/{SERVICE}")
PACKAGES = ("python3", "libseccomp2", "python3-jeepney", "python3-grpcio", "python3-protobuf")
NEEDED = "import sys, ctypes, jeepney, grpc, google.protobuf; sys.exit(sys.version_info < (3, 11))"
# Where containers of either engine have their state; runc's may be there, too.
STATES = ("run/containerd/runc/*/*/state.json", "run/sysvisor-runc/*/state.json")
PATIENCE = 60


class Failed(Exception):
    """What the person who reads the pod's log is to know."""


def say(text: str) -> None:
    print(text, flush=True)


def on_host(*argv: str, check: bool = True) -> str:
    """Run a program of the node's; what it printed. Raises Failed.

    In the node's mount namespace: what is only chrooted there may make no user namespaces (EPERM).
    """
    enter = ["nsenter", f"--target={INIT}", "--mount", "--pid", "--root", "--wd"]
    try:
        done = subprocess.run([*enter, *argv], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    except OSError as error:
        raise Failed(f"nsenter: {error.strerror}") from error
    if check and done.returncode != 0:
        raise Failed(f"{' '.join(argv)}: {done.stdout.strip() or f'exit code {done.returncode}'}")
    return done.stdout


def succeeds(*argv: str) -> bool:
    """Whether a program of the node's does."""
    try:
        on_host(*argv)
    except Failed:
        return False
    return True


def engine() -> str:
    """Which of the engines the node runs. Raises Failed."""
    if ENGINE in ("containerd", "crio"):
        return ENGINE
    if ENGINE != "auto":
        raise Failed(f"ENGINE={ENGINE!r}: expected containerd, crio or auto")
    found = [name for name in ("containerd", "crio") if succeeds("systemctl", "is-active", "--quiet", name)]
    if len(found) != 1:
        raise Failed(f"{' and '.join(found) or 'neither containerd nor crio'} runs as a service; set ENGINE and CONFIG")
    return found[0]


def check_node() -> None:
    """See that the program can run on the node, with the node's Python. Raises Failed."""
    if succeeds("python3", "-SIc", "import sys; sys.exit(sys.version_info < (3, 11))") and succeeds(
        "python3", "-Ic", NEEDED
    ):
        return
    if os.environ.get("PACKAGES") != "apt":
        raise Failed(f"the node needs Python 3.11 and: {' '.join(PACKAGES)}; PACKAGES=apt installs them there")
    say(f"installing on the node: {' '.join(PACKAGES)}")
    on_host("apt-get", "update", "--quiet=2")
    on_host("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "--yes", "--quiet=2", *PACKAGES)
    on_host("python3", "-Ic", NEEDED)


def copy_files() -> None:
    """Put the files in place: each, and the library as a whole, by a rename, under whoever runs it now."""
    new, old = HOST / f"{LIBRARY}.new", HOST / f"{LIBRARY}.old"
    for path in (new, old):
        shutil.rmtree(path, ignore_errors=True)
    new.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(STAGE / LIBRARY, new)
    if (HOST / LIBRARY).exists():
        (HOST / LIBRARY).rename(old)
    new.rename(HOST / LIBRARY)
    shutil.rmtree(old, ignore_errors=True)
    for name in FILES:
        target = HOST / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(STAGE / name, f"{target}.new")
        os.rename(f"{target}.new", target)


def tell(name: str, *flags: str) -> bool:
    """Tell the engine of the runtime, or no longer; whether it has to read its configuration."""
    config = ["--config", CONFIG] if CONFIG else []
    pending = PENDING.exists()
    PENDING.touch()
    told = on_host(PROGRAM, "install", f"--{name}", *config, *flags)
    say(told.strip())
    changed = pending or "nothing to change" not in told
    if not changed:
        PENDING.unlink()
    return changed


def restart(name: str) -> None:
    """Have the engine read its configuration, and wait until it works. Containers run on meanwhile. Raises Failed."""
    on_host("systemctl", "restart", name)
    deadline = time.monotonic() + PATIENCE
    while not works(name):
        if time.monotonic() > deadline:
            raise Failed(f"{name} does not work with it:\n{on_host('systemctl', 'status', name, check=False)}")
        time.sleep(0.5)
    PENDING.unlink(missing_ok=True)


def works(name: str) -> bool:
    """Whether the engine serves the kubelet: containerd may be up and its CRI not."""
    if not succeeds("systemctl", "is-active", "--quiet", name):
        return False
    if name == "crio":
        return True
    try:
        rows = [line.split() for line in on_host("ctr", "plugins", "ls").splitlines()]
    except Failed:
        return False
    states = [row[-1] for row in rows if len(row) > 2 and "cri" in (*row[0].split("."), row[1])]
    return bool(states) and all(state == "ok" for state in states)


def api_server() -> str:
    """Its URL, by the address that every pod is told: the cluster's DNS may not work yet, or need this very node."""
    host = os.environ.get("KUBERNETES_SERVICE_HOST", "")
    if ":" in host:
        host = f"[{host}]"
    told = f"https://{host}:{os.environ.get('KUBERNETES_SERVICE_PORT', '443')}" if host else ""
    return os.environ.get("API_SERVER", "") or told or "https://kubernetes.default.svc"


def label(value: str | None) -> None:
    """Set or remove the node's label. Raises Failed."""
    if not NODE:
        return
    server = api_server()
    request = urllib.request.Request(
        f"{server}/api/v1/nodes/{NODE}",
        data=json.dumps({"metadata": {"labels": {LABEL: value}}}).encode(),
        method="PATCH",
        headers={
            "Content-Type": "application/merge-patch+json",
            "Authorization": f"Bearer {(ACCOUNT / 'token').read_text().strip()}",
        },
    )
    trust = ssl.create_default_context(cafile=str(ACCOUNT / "ca.crt")) if server.startswith("https:") else None
    try:
        with urllib.request.urlopen(request, timeout=30, context=trust):
            pass
    except OSError as error:
        raise Failed(f"label node {NODE!r}: {error}") from error
    say(f"node {NODE}: {LABEL}={value}" if value else f"node {NODE}: no {LABEL}")


def containers() -> list[str]:
    """The ids of the node's containers that this runtime has made."""
    found = []
    for pattern in STATES:
        for path in HOST.glob(pattern):
            # Gone, or being written just now: the next look will tell.
            with contextlib.suppress(OSError, ValueError):
                state = json.loads(path.read_text())
                if isinstance(state, dict) and "initPid" in state:
                    found.append(path.parent.name)
    return found


def install() -> None:
    """Bring the node to where it can run system containers, or leave its engine as it was."""
    name = engine()
    check_node()
    copy_files()
    say(on_host(PROGRAM, "--version").strip())
    say(on_host(PROGRAM, "doctor", check=False).rstrip())
    on_host("systemctl", "daemon-reload")
    on_host("systemctl", "enable", SERVICE)
    on_host("systemctl", "restart", SERVICE)  # containers that run do not notice
    if tell(name):
        try:
            restart(name)
        except Failed:
            say(f"taking it back from {name}'s configuration")
            tell(name, "--uninstall")
            restart(name)
            raise
    label("true")


def uninstall() -> None:
    """Leave nothing on the node; not while containers need it."""
    label(None)
    left = containers()
    if left:
        raise Failed(f"{len(left)} containers of the runtime are on this node ({', '.join(left[:3])}…): drain it first")
    if not (HOST / PROGRAM[1:]).exists():
        say("nothing is installed")
        return
    name = engine()
    if tell(name, "--uninstall"):
        restart(name)
    on_host("systemctl", "disable", SERVICE, check=False)
    on_host(f"/{PREFIX}/sbin/sysvisor-fs", "stop", "--all", check=False)
    on_host("systemctl", "stop", SERVICE, check=False)
    for path in FILES:
        (HOST / path).unlink(missing_ok=True)
    shutil.rmtree(HOST / LIBRARY, ignore_errors=True)
    with contextlib.suppress(OSError):  # still mounted on, or not there
        (HOST / MOUNTPOINT).rmdir()
    on_host("systemctl", "daemon-reload")
    say("removed")


def main() -> int:
    words = [word for word in sys.argv[1:] if word != "--stay"]
    if words not in (["install"], ["uninstall"]):
        print("usage: node_installer.py install|uninstall [--stay]", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        (install if words == ["install"] else uninstall)()
    except (Failed, OSError) as error:
        print(f"node_installer: {error}", file=sys.stderr)
        return 1
    if "--stay" in sys.argv[1:]:
        READY.touch()
        while True:
            signal.pause()
    return 0


if __name__ == "__main__":
    sys.exit(main())
