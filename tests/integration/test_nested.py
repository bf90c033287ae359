"""Containers of other makes in a system container: nested user namespaces, sandboxes, runc, crun, rootless Podman."""

import json
import pathlib
import re
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.bundle import Bundle
from tests.support.machine import Debian, Machine, unpacked
from tests.support.runtime import Runtime

pytestmark = [
    pytest.mark.system,
    pytest.mark.slow,
    pytest.mark.debian("nested"),
    pytest.mark.debian("current"),
]

# A bundle of one static program, for whatever runtime is inside.
INNER = """
set -e
mkdir -p /inner/rootfs/bin /inner/rootfs/proc && cd /inner && cp /bin/busybox rootfs/bin/
for name in $(busybox --list | grep -vx busybox); do ln -sf busybox rootfs/bin/$name; done
"""


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "served"])
def served(request: pytest.FixtureRequest) -> bool:
    """Whether sysvisor-fs serves the outer container: mounts over its procfs and sysfs, which must hide nothing."""
    return bool(request.param)


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """Debian's own container tools, and an ordinary user `dev` with subordinate ids."""
    with unpacked("nested", tmp_path_factory) as system:
        with system.boot() as booted:
            booted.sh("useradd --create-home --shell /bin/bash dev && loginctl enable-linger dev")
            # useradd hands out ids from 100000, which a container of 65536 ids does not have.
            booted.sh("for file in /etc/subuid /etc/subgid; do echo dev:10000:50000 >$file; done")
            booted.sh(INNER)
        yield system


@pytest.fixture(scope="module")
def machine(nested: Debian, served: bool) -> Iterator[Machine]:
    """It has booted."""
    nested.served(served)
    with nested.boot() as booted:
        assert is_served(booted) == served
        yield booted


@pytest.fixture(scope="module")
def newest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """Nothing but the newest runc and crun."""
    with unpacked("current", tmp_path_factory) as system:
        yield system


@pytest.fixture(scope="module")
def current(newest: Debian, served: bool) -> Iterator[Machine]:
    """A container of it."""
    newest.served(served)
    booted = newest.start(newest.bundle("/bin/busybox", "sleep", "100000"))
    assert is_served(booted) == served
    booted.sh(INNER)
    yield booted
    newest.runtime("delete", "--force", booted.id)


def is_served(machine: Machine) -> bool:
    """Whether a file of the container's comes from sysvisor-fs."""
    return " /proc/meminfo fuse.sysvisorfs " in machine.sh("cat /proc/mounts")


def as_dev(machine: Machine, script: str) -> str:
    """What a login shell of the ordinary user prints."""
    return machine.exec("su", "-", "dev", "-c", f"export XDG_RUNTIME_DIR=/run/user/$(id -u)\n{script}").stdout.strip()


@pytest.mark.parametrize("who", ["root", "dev"])
def test_unshare_mounts_proc(machine: Machine, who: str) -> None:
    """A nested user namespace mounts a procfs of its own, which shows its own processes, and sysfs."""
    look = "mount -t sysfs sysfs /sys && ls /sys/class/net && cat /proc/1/comm; ps -e | grep -c systemd"
    script = f"unshare -Urnpf --mount-proc sh -c '{look}' || true"
    said = machine.sh(script) if who == "root" else as_dev(machine, script)
    assert said.split() == ["lo", "sh", "0"]


def test_unshare_deeper(machine: Machine) -> None:
    """And once more inside, three levels down."""
    inner = "unshare -Urpf --mount-proc "
    assert as_dev(machine, f"{inner * 3} sh -c 'ps -e --no-headers | wc -l; id -u'").split() == ["3", "0"]


@pytest.mark.parametrize("who", ["root", "dev"])
def test_bubblewrap(machine: Machine, who: str) -> None:
    """bubblewrap with everything unshared and a procfs of its own, as Flatpak uses it."""
    script = "bwrap --unshare-all --ro-bind / / --proc /proc --dev /dev --tmpfs /tmp sh -c 'echo $$; ls /dev/null'"
    said = machine.sh(script) if who == "root" else as_dev(machine, script)
    assert said.split() == ["2", "/dev/null"]


def inner_config(machine: Machine, command: str, **linux: object) -> None:
    """Have runc write the inner bundle's config.json, and change it."""
    machine.sh("cd /inner && rm -f config.json && runc spec")
    path = machine.bundle.rootfs / "inner/config.json"
    config = json.loads(path.read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/sh", "-c", command]}
    config["linux"] |= linux
    path.write_text(json.dumps(config))


def run_inner(machine: Machine, runtime: str) -> None:
    inner_config(machine, "id -u; cat /proc/1/comm; cat /proc/self/cgroup; cat /sys/fs/cgroup/*/pids.max",
                 resources={"pids": {"limit": 99}})  # fmt: skip
    said = machine.sh(f"cd /inner && {runtime} run inner-{runtime}").splitlines()
    assert said[:2] == ["0", "sh"]  # the procfs is the inner container's own
    assert any(line.endswith(f"/inner-{runtime}") for line in said)
    assert said[-1] == "99"


def run_inner_in_user_namespace(machine: Machine, runtime: str) -> None:
    mapping = [{"containerID": 0, "hostID": 20000, "size": 1000}]
    kinds = ("pid", "network", "ipc", "uts", "mount", "user")
    inner_config(machine, "cat /proc/self/uid_map; echo x >/dev/null", uidMappings=mapping, gidMappings=mapping,
                 namespaces=[{"type": kind} for kind in kinds])  # fmt: skip
    machine.sh("chown -R 20000:20000 /inner/rootfs")
    assert machine.sh(f"cd /inner && {runtime} run userns-{runtime}").split() == ["0", "20000", "1000"]
    machine.sh("chown -R 0:0 /inner/rootfs")


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_runtimes_of_debian_12(machine: Machine, runtime: str) -> None:
    """Debian's runc 1.1 and crun 1.8 run a container inside, with a limit in a cgroup of its own."""
    if runtime == "crun" and machine.sh("test -d /sys/fs/cgroup/unified && echo hybrid || true"):
        # It refuses hybrid layouts, on any host.
        inner_config(machine, "cat /proc/1/comm; true")
        assert machine.sh("cd /inner && crun --cgroup-manager=disabled run inner-crun") == "sh"
        return
    run_inner(machine, runtime)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_current_runtimes(current: Machine, runtime: str) -> None:
    """The newest runc, which trusts no procfs that anything is mounted on, and crun run a container inside."""
    if runtime == "runc":
        version = re.search(r"runc version (\d+)\.(\d+)", current.sh("runc --version"))
        assert version is not None and (int(version[1]), int(version[2])) >= (1, 3)
    run_inner(current, runtime)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_user_namespace_of_current_runtimes(current: Machine, runtime: str) -> None:
    """They also give an inner container a user namespace of its own."""
    run_inner_in_user_namespace(current, runtime)


@pytest.mark.parametrize("runtime", ["runc", "crun"])
def test_exec_of_current_runtimes(current: Machine, runtime: str) -> None:
    """exec, state, kill and delete work on a running inner container."""
    inner_config(current, "exec sleep 1000")
    script = f"cd /inner && {runtime} run -d there </dev/null >/dev/null 2>&1 && {runtime} exec there hostname"
    assert current.sh(script) == "runc"
    current.sh(f"{runtime} kill there KILL && sleep 0.2; {runtime} delete -f there")


def test_rootless_podman(machine: Machine) -> None:
    """An ordinary user runs a container with several ids, a network through TUN, and a layer on fuse or a copy."""
    as_dev(machine, "tar -C /inner/rootfs -c . | podman import --quiet - localhost/box")
    assert as_dev(machine, "podman run --rm localhost/box id -u") == "0"
    mapping = as_dev(machine, "podman run --rm localhost/box cat /proc/self/uid_map").split()
    assert mapping == ["0", machine.sh("id -u dev"), "1", "1", "10000", "50000"]
    if pathlib.Path("/dev/net/tun").exists():
        assert "10.0.2.100" in as_dev(machine, "podman run --rm localhost/box ip -4 addr show tap0")
    assert machine.foreign_ids() == []


def test_rootless_podman_on_fuse(machine: Machine) -> None:
    """The same on fuse-overlayfs, an ordinary user's FUSE mount inside."""
    if not pathlib.Path("/dev/fuse").exists():
        pytest.skip("the host has no /dev/fuse; to force it: modprobe fuse")
    flags = "--root /home/dev/fuse --storage-driver overlay --storage-opt overlay.mount_program=/usr/bin/fuse-overlayfs"
    as_dev(machine, f"tar -C /inner/rootfs -c . | podman {flags} import --quiet - localhost/box")
    change = "sh -c 'chown 7:8 /bin && stat -c %u:%g /bin'"
    assert as_dev(machine, f"podman {flags} run --rm --network none localhost/box {change}") == "7:8"


def test_ranges_never_overlap(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """Containers at the same time have no id of the host in common."""
    bundle = new_bundle("/bin/sleep", "1000")
    for kind in ("uid", "gid"):
        taken: list[int] = []
        for _ in range(4):
            name = runtime.id()
            runtime("run", "--detach", "--bundle", bundle.path, name)
            mapping = pathlib.Path(f"/proc/{runtime.state(name)['pid']}/{kind}_map").read_text()
            inside, outside, size = map(int, mapping.split())
            assert (inside, size) == (0, 65536)
            assert not any(abs(outside - other) < size for other in taken)
            taken.append(outside)


def test_keyrings_are_apart(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """Each container has a session keyring of its own and sees no key of another's."""
    names = []
    for _ in range(2):
        name = runtime.id()
        runtime("run", "--detach", "--bundle", new_bundle("/bin/sleep", "1000").path, name)
        names.append(name)
    for mine, other in (names, names[::-1]):
        seen = runtime("exec", mine, "cat", "/proc/keys").stdout
        assert f"_ses.{mine}" in seen
        assert f"_ses.{other}" not in seen


# Its arguments are a program, which runs as root of a user namespace that has all ids, with a procfs of its own.
ENTER = """
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments):
        sys.exit(f"{name}: {os.strerror(ctypes.get_errno())}")
told, ready = os.pipe()
waited, go = os.pipe()
pid = os.fork()
if pid == 0:
    call("unshare", 0x10000000 | 0x20000 | 0x20000000)  # CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWPID
    os.write(ready, b"x")
    os.read(waited, 1)
    child = os.fork()
    if child == 0:
        call("mount", b"proc", b"/proc", b"proc", 0, None)
        os.execv(sys.argv[1], sys.argv[1:])
    os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
os.read(told, 1)
for kind in ("uid", "gid"):
    with open(f"/proc/{pid}/{kind}_map", "w") as file:
        file.write("0 0 4294967294")
os.write(go, b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_in_the_user_namespace_of_somebody_else(runtime: Runtime, bundle: Bundle) -> None:
    """Where the host is itself a container, what only the initial user namespace may is done without, or told."""

    def run(*flags: str) -> "subprocess.CompletedProcess[str]":
        argv = runtime.argv("run", *flags, "--bundle", bundle.path, runtime.id())
        enter = ["/usr/bin/python3", "-SI", "-c", ENTER, *map(str, argv)]
        return subprocess.run(enter, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    bundle.sh("cat /proc/self/uid_map; stat -c %u /bin").save()
    refused = run()
    assert refused.returncode == 1
    assert "mounted outside of the user namespace" in refused.stderr and "--uid-shift chown" in refused.stderr
    done = run("--uid-shift", "chown")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[0] == "0" and done.stdout.split()[2:] == ["65536", "0"]
