"""CVE-2022-0492, CVE-2023-25809: a container reaches no cgroup but its own and those below, and no limit of its own."""

import json
import os
import pathlib
from collections.abc import Iterator

import pytest

from sysvisor_runc.cgroup.tree import directories
from sysvisor_runc.kernel import file as kernel_file
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until

CGROUPS = pathlib.Path("/sys/fs/cgroup")
LIMIT = 64 << 20

ATTACK = """
for f in $(find /sys/fs/cgroup -name release_agent); do echo got-agent $f; echo /evil >$f && echo got-agent; done
mkdir /mnt/c
for c in memory pids devices rdma cpu; do
    mount -t cgroup -o $c,release_agent=/evil none /mnt/c && echo got-mount-with-agent $c && umount /mnt/c
    if mount -t cgroup -o $c none /mnt/c; then
        ls /mnt/c/release_agent && echo got-root $c
        for f in $(find /mnt/c -maxdepth 1 -type f); do echo -1 >$f && echo got-write $c $f; done
        umount /mnt/c
    fi
done
mount -t cgroup2 none /mnt/c &&
    for f in $(find /mnt/c -maxdepth 1 -name '*.max'); do echo max >$f && echo got-write $f; done
cd /sys/fs/cgroup
for f in $(find . -maxdepth 2 -type f); do case $f in
    */tasks|*/cgroup.procs|*/cgroup.threads|*/cgroup.subtree_control|*/cgroup.clone_children|*/notify_on_release) ;;
    *) for value in -1 max a 1; do echo $value >$f && echo got-limit $f $value; done ;;
esac; done
mkdir devices/below && for v in a 'a *:* rwm' 'b *:* rwm'; do
    [ -e devices/below/devices.allow ] && echo "$v" >devices/below/devices.allow && echo got-device
done
ls -d ../.. /proc/1/root/sys/fs/cgroup/.. >/dev/null
true
"""


def limits(paths: dict[str, str]) -> dict[str, str]:
    """The contents of every file in the container's own cgroup that somebody might raise."""
    found = {}
    for path in set(paths.values()):
        for file in pathlib.Path(path).iterdir():
            if file.is_file() and file.name.endswith((".max", ".high", "limit_in_bytes", ".list", "quota_us", "agent")):
                try:
                    found[str(file)] = file.read_text()
                except OSError:
                    continue
    return found


def agents() -> dict[str, str]:
    return {str(path): path.read_text() for path in CGROUPS.glob("*/release_agent")}


def test_a_system_container_stays_in_its_cgroup(runtime: Runtime, bundle: Bundle) -> None:
    """Root tries every release_agent, every limit file, mounts of every hierarchy and devices.allow."""
    bundle.linux["resources"] = {"memory": {"limit": LIMIT}, "pids": {"limit": 200}}
    bundle.run("/bin/sleep", "1000")
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.path, name)
    paths = json.loads((runtime.root / name / "state.json").read_text())["cgroup"]["paths"]
    before, agent = limits(paths), agents()
    result = runtime("exec", name, "/bin/sh", "-c", ATTACK, check=False, timeout=60)
    assert "got-" not in result.stdout, result.stdout
    assert limits(paths) == before and agents() == agent


def test_a_plain_container_sees_its_own_cgroup_alone(plain_runtime: Runtime, bundle: Bundle) -> None:
    """With the default spec, whose cgroup mount is not the container's to write but for its root's every capability,
    nothing above the container's cgroup is there: no release_agent, no other's cgroup."""
    bundle.sh("find /sys/fs/cgroup -name release_agent; find /sys/fs/cgroup -type d | head -50; cat /proc/self/cgroup")
    name = plain_runtime.id()
    output = plain_runtime("run", "--bundle", bundle.path, name).stdout
    assert "release_agent" not in output
    assert name not in output  # it is the root of what it sees
    assert all(line.endswith(":/") for line in output.splitlines() if ":" in line)


@pytest.mark.parametrize("path", ["../../escape", "/../escape", "/a/../../b", "/", "..", "a/..", "/a\nb"])
@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_paths_that_climb(request: pytest.FixtureRequest, bundle: Bundle, path: str, kind: str) -> None:
    """A cgroupsPath with .. is refused, and no cgroup is made; nor does exec --cgroup climb."""
    runtime: Runtime = request.getfixturevalue(kind)
    bundle.linux["cgroupsPath"] = path
    runtime.fails("run", "--bundle", bundle.save().path, runtime.id())
    assert not list(CGROUPS.glob("*/escape"))


def test_exec_into_a_cgroup_above(runtime: Runtime, bundle: Bundle) -> None:
    """exec --cgroup of .. or of an absolute path never leads out of the container's cgroup."""
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    for path in ("..", "../..", "a/../..", "/.."):
        runtime.fails("exec", "--cgroup", path, name, "/bin/true")
    result = runtime("exec", "--cgroup", "/", name, "/bin/cat", "/proc/self/cgroup", check=False)
    assert os.path.basename(str(runtime.root)) not in result.stdout


# Deeper than a path can say, and cgroups that come and go, while the host walks through.
_NAME = "n" * 250
DIG = f"""
cd /sys/fs/cgroup/$0 || exit
(while :; do mkdir -p a/b; rmdir a/b a; done) 2>/dev/null &
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do mkdir {_NAME}; cd {_NAME}; done
echo dug
sleep 1000
"""


def dug(runtime: Runtime, bundle: Bundle, controller: str) -> tuple[str, pathlib.Path]:
    """A container that has made cgroups of its own: its id, and its cgroup of the controller's hierarchy."""
    if not (CGROUPS / controller / "tasks").exists():
        pytest.skip(f"no v1 {controller} controller; to force it: run on cgroup v1")
    bundle.run("/bin/sh", "-c", DIG, controller)
    name = runtime.id()
    output = runtime.directory / "dug"
    with output.open("wb") as file:
        runtime("run", "--detach", "--bundle", bundle.path, name, stdout=file)
    wait_until(lambda: output.read_bytes() != b"", 20, "cgroups of its own")
    paths = json.loads((runtime.root / name / "state.json").read_text())["cgroup"]["paths"]
    return name, pathlib.Path(paths[controller])


def below(path: pathlib.Path) -> Iterator[int]:
    """Every cgroup below, however deep."""
    fds = iter(directories(str(path)))
    next(fds)
    return fds


def test_cpus_move_whatever_a_container_has_below(runtime: Runtime, bundle: Bundle) -> None:
    """A container can neither be too deep for an update of its cpuset, nor keep it from going elsewhere."""
    name, path = dug(runtime, bundle, "cpuset")
    cpus = (path / "cpuset.cpus").read_text().strip().replace("-", ",").split(",")
    for wanted in (cpus[0], cpus[-1], cpus[0]):
        runtime("update", "--cpuset-cpus", wanted, name)
        runtime("pause", name)  # they come and go
        assert (path / "cpuset.cpus").read_text().strip() == wanted
        found = {kernel_file.read("cpuset.cpus", fd).decode().strip() for fd in below(path)}
        assert found <= {wanted, ""}, found
        runtime("resume", name)


def test_throttles_reach_whatever_a_container_has_below(runtime: Runtime, bundle: Bundle) -> None:
    """They bind one cgroup each, so they go to all, and no more can be made."""
    disk = next((d for d in pathlib.Path("/sys/block").iterdir() if int((d / "size").read_text())), None)
    if disk is None:
        pytest.skip("no block device; to force it: losetup -f FILE")
    name, path = dug(runtime, bundle, "blkio")
    major, minor = map(int, (disk / "dev").read_text().split(":"))
    resources = runtime.directory / "resources.json"
    limit = {"major": major, "minor": minor, "rate": 1 << 20}
    resources.write_text(json.dumps({"blockIO": {"throttleReadBpsDevice": [limit]}}))
    runtime("update", "--resources", resources, name)
    depth = 0
    for fd in below(path):
        depth += 1
        assert os.fstat(fd).st_uid == 0
        assert kernel_file.read("blkio.throttle.read_bps_device", fd).split() == [b"%d:%d" % (major, minor), b"1048576"]
    assert depth > 15


# Opens the limits of a cgroup of its own before there are any to lift, and lifts them as soon as there are.
LIFT = """
cd /sys/fs/cgroup/blkio && mkdir -p own/inner && cd own/inner && echo $$ >tasks && exec 3>blkio.throttle.read_bps_device
echo dug
while ! grep -q 1048576 /sys/fs/cgroup/blkio/blkio.throttle.read_bps_device; do sleep 0.02; done
for i in 1 2 3; do echo "$0 0" >&3; echo "$0 0" >/sys/fs/cgroup/blkio/own/inner/blkio.throttle.read_bps_device; done
mkdir /sys/fs/cgroup/blkio/more && echo $$ >/sys/fs/cgroup/blkio/more/tasks
echo tried
sleep 1000
"""


def test_a_throttle_cannot_be_lifted(runtime: Runtime, bundle: Bundle) -> None:
    """The cgroups that a container has made are not its own any more once they are throttled, open files or not."""
    disk = next((d for d in pathlib.Path("/sys/block").iterdir() if int((d / "size").read_text())), None)
    if disk is None or not (CGROUPS / "blkio/tasks").exists():
        pytest.skip("no block device or no v1 blkio controller; to force it: losetup -f FILE on cgroup v1")
    number = (disk / "dev").read_text().strip()
    bundle.run("/bin/sh", "-c", LIFT, number)
    name, output = runtime.id(), runtime.directory / "output"
    with output.open("wb") as file:
        runtime("run", "--detach", "--bundle", bundle.path, name, stdout=file)
    wait_until(lambda: b"dug" in output.read_bytes(), 20)
    state = json.loads((runtime.root / name / "state.json").read_text())
    resources = runtime.directory / "resources.json"
    major, minor = map(int, number.split(":"))
    limit = {"major": major, "minor": minor, "rate": 1 << 20}
    resources.write_text(json.dumps({"blockIO": {"throttleReadBpsDevice": [limit]}}))
    runtime("update", "--resources", resources, name)
    wait_until(lambda: b"tried" in output.read_bytes(), 20)
    inner = pathlib.Path(state["cgroup"]["paths"]["blkio"], "syscont/own/inner")
    assert str(state["initPid"]) in (inner / "tasks").read_text().split()
    for path in (inner, inner.parent, inner.parent.parent):
        assert (path / "blkio.throttle.read_bps_device").read_text().split() == [number, "1048576"]
    assert not (inner.parent.parent / "more").exists()
