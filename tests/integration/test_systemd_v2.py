"""The machine of test_systemd.py on pure cgroup v2, in user-mode-linux: another kernel, one slow CPU."""

import pathlib

import pytest

from tests.support import uml
from tests.support.runtime import PROGRAM
from tools import debian_rootfs

pytestmark = [pytest.mark.system, pytest.mark.slow]

# tmpfs cannot be ID-mapped there, so that this is the test of a chowned rootfs as well.
BOOT = """
set -e
mkdir /tmp/m && mount -t tmpfs -o size=1700m,mode=755 tmpfs /tmp/m && cd /tmp/m && mkdir rootfs
tar -x -C rootfs --numeric-owner --exclude='./dev/*' -f {archive}
run() {{ {program} --root /tmp/m/state --no-sysvisor-fs "$@"; }}
inside() {{ run exec uml "$@" </dev/null; }}
run spec
/usr/bin/python3 - <<'END'
import json
config = json.load(open("config.json"))
config["process"].update(args=["/sbin/init"], terminal=False, cwd="/")
config["root"]["readonly"] = False
config["mounts"].append({{"destination": "/var/lib/docker", "type": "tmpfs", "options": ["size=200m"]}})
config["linux"]["resources"]["memory"] = {{"limit": 800 << 20}}
json.dump(config, open("config.json", "w"))
END
mkdir -p rootfs/etc/docker && echo '{{"bridge": "none", "iptables": false}}' >rootfs/etc/docker/daemon.json
run run --uid-shift chown uml </dev/null & command=$!
state=
for i in $(seq 300); do
    state=$(inside systemctl is-system-running 2>/dev/null) || true
    case $state in running|degraded|maintenance) break ;; esac
    sleep 0.3
done
"""

# Prints `name: value` lines.
LOOK = """
echo "state: $state $(inside systemctl list-units --failed --plain --no-legend)"
echo "init: $(inside cat /proc/1/cgroup)"
inside systemd-run --quiet --unit limited.service -p TasksMax=7 -p MemoryMax=20M sleep 1000
echo "tasks: $(inside cat /sys/fs/cgroup/system.slice/limited.service/pids.max)"
echo "memory: $(inside cat /sys/fs/cgroup/system.slice/limited.service/memory.max)"
echo "own: $(inside cat /sys/fs/cgroup/memory.max)"
inside sh -c 'echo max >/sys/fs/cgroup/memory.max' 2>/dev/null && echo "raise: allowed" || echo "raise: refused"
echo "exec: $(inside cat /proc/self/cgroup)"
inside systemctl poweroff || true
code=0; wait $command || code=$?
echo "code: $code"
echo "left: $(run list -q)$(ls -d /sys/fs/cgroup/uml 2>/dev/null || true)"
"""

# The kernel has bridges and NAT as modules only, so dockerd goes without; everything else is as in test_docker_inside.
DOCKER = """
inside sh -c 'mkdir -p /i/bin && cp /bin/busybox /i/bin/'
inside sh -c 'cd /i/bin && for name in sh id dd cat; do ln -s busybox $name; done'
inside sh -c 'tar -C /i -c . | docker import - box >/dev/null'
echo "info: $(inside docker info --format '{{.Driver}} {{.CgroupDriver}} {{.CgroupVersion}}')"
echo "id: $(inside docker run --rm --network none box id -u)"
echo "limit: $(inside docker run --rm --network none -m 64m box cat /sys/fs/cgroup/memory.max)"
code=0
inside docker run --rm --network none -m 20m box dd if=/dev/zero of=/dev/null bs=100M 2>/dev/null || code=$?
echo "killed: $code"
inside sh -c 'mkdir -p /b/rootfs/bin && cp /bin/busybox /b/rootfs/bin/sh && cd /b && crun spec'
inside sed -i 's/"terminal": true/"terminal": false/; s/"sh"$/"sh", "-c", "echo $$"/' /b/config.json
echo "runc: $(run exec --cwd /b uml runc run one </dev/null)"
echo "crun: $(run exec --cwd /b uml crun run two </dev/null)"
run delete --force uml
echo "left: $(run list -q)$(ls -d /sys/fs/cgroup/uml 2>/dev/null || true)"
"""


def in_guest(tmp_path: pathlib.Path, variant: str, script: str, memory: str) -> dict[str, str]:
    """Boot a variant, then run the script; what it printed, by name."""
    try:
        archive = debian_rootfs.archive(variant)
    except RuntimeError as error:
        pytest.skip(f"{error}; to force it: make deps with the Debian archive in reach")
    boot = BOOT.format(archive=archive, program=PROGRAM)
    said = uml.run(tmp_path, "v2", boot + script, memory=memory, timeout=280)
    found = dict(line.partition(": ")[::2] for line in said.splitlines())
    assert found["left"].strip() == "", said
    return {name: value.strip() for name, value in found.items()}


@pytest.mark.debian("systemd")
def test_boots_on_v2(tmp_path: pathlib.Path) -> None:
    """Boots to `running`, delegates limits to its services, cannot raise its own, and leaves nothing."""
    found = in_guest(tmp_path, "systemd", LOOK, "1500M")
    assert found["state"] == "running"
    assert found["init"] == found["exec"] == "0::/init.scope"
    assert (found["tasks"], found["memory"]) == ("7", str(20 << 20))
    assert (found["own"], found["raise"]) == (str(800 << 20), "refused")
    assert found["code"] == "0"


@pytest.mark.debian("nested")
def test_docker_on_v2(tmp_path: pathlib.Path) -> None:
    """dockerd with the systemd cgroup driver, Debian's runc and its crun run containers; a memory limit holds."""
    found = in_guest(tmp_path, "nested", DOCKER, "3G")
    assert found["info"] == "overlay2 systemd 2"
    assert (found["id"], found["limit"], found["killed"]) == ("0", str(64 << 20), "137")
    assert (found["runc"], found["crun"]) == ("1", "1")
