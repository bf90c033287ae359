"""The machine of test_systemd.py on pure cgroup v2, in user-mode-linux: another kernel, one slow CPU."""

import pathlib

import pytest

from tests.support import uml
from tests.support.runtime import PROGRAM
from tools import debian_rootfs

pytestmark = [pytest.mark.system, pytest.mark.slow]

# Prints `name: value` lines. tmpfs cannot be ID-mapped there, so that this is the test of a chowned rootfs as well.
SCRIPT = """
set -e
mkdir /tmp/m && mount -t tmpfs -o size=600m,mode=755 tmpfs /tmp/m && cd /tmp/m && mkdir rootfs
tar -x -C rootfs --numeric-owner --exclude='./dev/*' -f {archive}
run() {{ {program} --root /tmp/m/state --no-sysvisor-fs "$@"; }}
inside() {{ run exec uml "$@" </dev/null; }}
run spec
/usr/bin/python3 - <<'END'
import json
config = json.load(open("config.json"))
config["process"].update(args=["/sbin/init"], terminal=False, cwd="/")
config["root"]["readonly"] = False
config["linux"]["resources"]["memory"] = {{"limit": 400 << 20}}
json.dump(config, open("config.json", "w"))
END
run run --uid-shift chown uml </dev/null & command=$!
state=
for i in $(seq 200); do
    state=$(inside systemctl is-system-running 2>/dev/null) || true
    case $state in running|degraded|maintenance) break ;; esac
    sleep 0.3
done
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


def test_boots_on_v2(tmp_path: pathlib.Path) -> None:
    """Boots to `running`, delegates limits to its services, cannot raise its own, and leaves nothing."""
    try:
        archive = debian_rootfs.archive("systemd")
    except RuntimeError as error:
        pytest.skip(f"{error}; to force it: make deps with the Debian archive in reach")
    said = uml.run(tmp_path, "v2", SCRIPT.format(archive=archive, program=PROGRAM), memory="1500M")
    found = dict(line.split(": ", 1) for line in said.splitlines() if ": " in line)
    assert found["state"].strip() == "running", said
    assert found["init"] == "0::/init.scope"
    assert found["exec"] == "0::/init.scope"
    assert (found["tasks"], found["memory"]) == ("7", str(20 << 20))
    assert (found["own"], found["raise"]) == (str(400 << 20), "refused")
    assert found["code"] == "0"
    assert said.splitlines()[-1].strip() == "left:"
