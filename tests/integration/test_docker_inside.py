"""Docker in a system container: its daemon runs containers there as on a machine, without a privilege on the host."""

import json
import pathlib
from collections.abc import Iterator

import pytest

from tests.support.machine import Debian, Machine, unpacked

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.debian("nested")]

# An image of one static program, imported from a tar archive: no registry.
IMPORT = """
mkdir -p /tmp/image/bin && cp /bin/busybox /tmp/image/bin/
for name in $(busybox --list | grep -vx busybox); do ln -sf busybox /tmp/image/bin/$name; done
tar -C /tmp/image -c . | docker import - box
"""


@pytest.fixture(scope="module", params=[False, True], ids=["alone", "served"])
def served(request: pytest.FixtureRequest) -> bool:
    """Whether sysvisor-fs serves the machine: dockerd and the containers then have its files, and set its sysctls."""
    return bool(request.param)


@pytest.fixture(scope="module")
def nested(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """Debian with dockerd, whose data is on a volume: overlay2 does not work on an overlay."""
    with unpacked("nested", tmp_path_factory) as system:
        (system.directory / "docker").mkdir()
        yield system


@pytest.fixture(scope="module")
def machine(nested: Debian, served: bool) -> Iterator[Machine]:
    """It has booted, and has an image."""
    nested.served(served)
    bundle = nested.bundle()
    volume = {"type": "bind", "source": str(nested.directory / "docker"), "options": ["rbind", "rw"]}
    bundle.config["mounts"].append({"destination": "/var/lib/docker", **volume})
    booted = nested.start(bundle.save())
    assert booted.wait_booted() == "running"
    assert (" /proc/meminfo fuse.sysvisorfs " in booted.sh("cat /proc/mounts")) == served
    booted.wait_for("docker info >/dev/null 2>&1", "dockerd")
    booted.sh(IMPORT)
    yield booted
    nested.runtime("delete", "--force", booted.id)


def test_runs_a_container(machine: Machine) -> None:
    """A container runs, on overlayfs, with ids that are root only in there."""
    assert machine.sh("docker info --format '{{.Driver}}'") == "overlay2"
    assert machine.sh("docker run --rm box id -u") == "0"
    first, size = machine.first_id()
    assert machine.sh("docker run --rm box cat /proc/self/uid_map").split() == ["0", str(first), str(size)]


def test_own_network(machine: Machine) -> None:
    """It has an address of its own on the bridge, and reaches what lies beyond through NAT."""
    assert " 172.17." in machine.sh("docker run --rm box ip -4 addr show eth0")
    # Another network namespace, on a link of its own, stands for the world.
    machine.sh(
        "ip netns add world && ip link add near type veth peer name far netns world && ip addr add 10.9.9.1/24 dev near"
        " && ip link set near up && ip -n world addr add 10.9.9.2/24 dev far && ip -n world link set far up"
    )
    machine.sh("systemd-run --quiet --unit world ip netns exec world nc -lkvn 10.9.9.2 99")
    machine.wait_for("ip netns exec world ss -ltn | grep -q :99", "the server outside")
    # The world has no route back to 172.17: an answer proves that the address was translated.
    machine.sh("docker run --rm box sh -c 'echo hello | nc -w 5 10.9.9.2 99'", check=False)
    machine.wait_for("journalctl --sync; journalctl -u world -o cat | grep -q 'received on 10.9.9.1 '", "the call")


def test_published_port(machine: Machine) -> None:
    """A published port answers on the machine's loopback and on its other addresses."""
    page = "mkdir /www; echo hello >/www/index.html; exec httpd -f -h /www"
    machine.sh(f"docker run -d --name web -p 8080:80 box sh -c '{page}'")
    for address in ("127.0.0.1", "172.17.0.1"):
        machine.wait_for(f"curl -fsS http://{address}:8080/ | grep -qx hello", f"an answer on {address}")
    machine.sh("docker rm --force web")


def test_memory_limit(machine: Machine) -> None:
    """A memory limit is enforced by the kernel, in a cgroup below the machine's own."""
    eat = "docker run --name eater -m 24m box dd if=/dev/zero of=/dev/null bs=200M count=1"
    assert machine.exec("/bin/sh", "-c", eat, check=False).returncode == 137
    assert machine.sh("docker inspect --format '{{.State.OOMKilled}}' eater") == "true"
    machine.sh("docker rm eater")


def test_exec_stop_and_logs(machine: Machine) -> None:
    """exec, logs, stop and restart work on a running container."""
    machine.sh("docker run -d --init --name long box sh -c 'echo started; sleep 1000'")
    assert machine.sh("docker exec long hostname") == machine.sh("docker inspect --format '{{.Config.Hostname}}' long")
    machine.wait_for("docker logs long | grep -qx started", "the log")
    machine.sh("docker restart -t 1 long && docker stop -t 1 long && docker rm long")


def test_build(machine: Machine) -> None:
    """An image is built: layers, root inside, files with owners of their own."""
    steps = "FROM box\nRUN mkdir /made && chown 1234:4321 /made\nCMD stat -c %u:%g /made\n"
    machine.sh(f"docker build -q -t made - <<'END'\n{steps}END")
    assert machine.sh("docker run --rm made") == "1234:4321"


def test_privileged_container(machine: Machine) -> None:
    """`--privileged` inside gives what the machine has, which is nothing on the host."""
    said = machine.sh("docker run --rm --privileged box sh -c 'mount -t tmpfs t /mnt && mkdir /sys/fs/cgroup/pids/x; "
                      "cat /proc/sys/kernel/random/boot_id; echo c >/proc/sysrq-trigger || echo refused'")  # fmt: skip
    assert said.endswith("refused")
    assert machine.foreign_ids() == []


def test_no_id_of_the_host(machine: Machine) -> None:
    """dockerd, its shims and what runs in its containers are ordinary nobodies on the host, and so are its files."""
    machine.sh("docker run -d --name there box sleep 1000")
    names = {pathlib.Path(f"/proc/{pid}/comm").read_text().strip() for pid in machine.processes()}
    assert {"dockerd", "containerd", "sleep"} <= names
    assert machine.foreign_ids() == []
    machine.sh("docker rm --force there")


def test_state_of_docker(machine: Machine) -> None:
    """Nothing that dockerd wanted of the kernel failed: no unit is broken, and it warns of no missing right."""
    assert machine.sh("systemctl list-units --failed --plain --no-legend") == ""
    info = json.loads(machine.sh("docker info --format '{{json .}}'"))
    assert info["CgroupVersion"] in ("1", "2") and info["MemoryLimit"]
