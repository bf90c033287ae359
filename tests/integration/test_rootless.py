"""Containers that an ordinary user starts: no privilege on the host is used, and none is needed.

The user, with subordinate ids, exists only in the private mount namespace that each command is run in.
"""

import errno
import functools
import json
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sysvisor_runc.cgroup.layout import detect
from tests.support.bundle import Bundle
from tests.support.runtime import SOURCE, Runtime, wait_until
from tests.support.terminal import on_terminal

USER, UID, FIRST = "sysvisortest", 64123, 3_000_000_000
SIZE = 65536
MAPPED = [(0, UID, 1), (1, FIRST, SIZE - 1)]

# Runs the installed program as the user. $DIRECTORY is the test's.
WRAPPER = """#!/bin/sh
exec unshare -m sh -c '
for file in passwd subuid subgid; do mount --bind {directory}/etc/$file /etc/$file; done
exec setpriv --reuid {uid} --regid {uid} --clear-groups --inh-caps=-all \\
    env -u SUDO_UID XDG_RUNTIME_DIR={directory}/runtime HOME={directory}/home {program} "$@"' sh "$@"
"""


def install(directory: pathlib.Path) -> pathlib.Path:
    """A copy of the program that everybody may read: the checkout may lie in a directory of root's."""
    library = directory / "lib"
    shutil.copytree(SOURCE / "sysvisor_runc", library / "sysvisor_runc", ignore=shutil.ignore_patterns("__pycache__"))
    (library / "bin").mkdir()
    shutil.copy(SOURCE / "bin/sysvisor-runc", library / "bin/sysvisor-runc")
    return library / "bin/sysvisor-runc"


@pytest.fixture
def user_runtime(workplace: pathlib.Path) -> Iterator[Runtime]:
    """`sysvisor-runc` as called by an ordinary user with 65536 subordinate ids."""
    if not shutil.which("newuidmap"):
        pytest.skip("no newuidmap; to force it: apt-get install uidmap")
    for name in ("runtime", "home", "state", "etc"):
        (workplace / name).mkdir(mode=0o700)
        os.chown(workplace / name, UID, UID)
    etc = workplace / "etc"
    (etc / "passwd").write_text(f"root:x:0:0::/:/bin/sh\n{USER}:x:{UID}:{UID}::/:/bin/sh\n")
    for name in ("subuid", "subgid"):
        (etc / name).write_text(f"{USER}:{FIRST}:{SIZE}\n")
    wrapper = workplace / "as-user"
    program = install(workplace)
    wrapper.write_text(WRAPPER.format(directory=workplace, uid=UID, program=program))
    wrapper.chmod(0o755)
    runtime = Runtime(workplace, "--no-sysvisor-fs", program=wrapper)
    yield runtime
    runtime.clean()
    assert list(runtime.root.glob("[!@]*")) == []


@pytest.fixture
def owned(bundle: Bundle) -> Bundle:
    """A bundle whose files are the user's."""
    subprocess.run(["chown", "-R", f"{UID}:{UID}", bundle.path], check=True)
    return bundle


def plain(bundle: Bundle, *args: str, mappings: list[tuple[int, int, int]] | None = None) -> Bundle:
    """What `spec --rootless` writes: the user alone is mapped, unless `mappings` says more."""
    script = "from sysvisor_runc.spec.template import default_spec as d; import json; print(json.dumps(d({})))"
    text = subprocess.run(
        [sys.executable, "-c", script.format("rootless=True, conforming=True")],
        capture_output=True, text=True, check=True, cwd=SOURCE,
    ).stdout  # fmt: skip
    bundle.config.clear()
    bundle.config.update(json.loads(text))
    bundle.process.update(terminal=False, args=list(args))
    entries = [dict(zip(("containerID", "hostID", "size"), row, strict=True)) for row in mappings or [(0, UID, 1)]]
    bundle.linux.update(uidMappings=entries, gidMappings=entries)
    return bundle.save()


def uid_map(text: str) -> list[tuple[int, ...]]:
    return [tuple(map(int, line.split())) for line in text.splitlines() if len(line.split()) == 3]


def test_a_whole_life(user_runtime: Runtime, owned: Bundle) -> None:
    """Create, start, exec, kill and delete work for a user as for root, and root inside is the user outside."""
    name = user_runtime.id()
    plain(owned, "/bin/sleep", "1000")
    user_runtime.flags = ("--no-syscont",)
    user_runtime("create", "--bundle", owned.path, name)
    assert user_runtime.state(name)["status"] == "created"
    user_runtime("start", name)
    state = user_runtime.state(name)
    assert state["status"] == "running"
    assert os.stat(f"/proc/{state['pid']}").st_uid in (UID, 0)  # 0 where it is not dumpable
    assert pathlib.Path(f"/proc/{state['pid']}/status").read_text().split("Uid:")[1].split()[:4] == [str(UID)] * 4
    assert user_runtime("exec", name, "id", "-u").stdout == "0\n"
    user_runtime("kill", name, "KILL")
    user_runtime.wait_status(name, "stopped")
    user_runtime("delete", name)
    assert user_runtime.ids() == []


@pytest.mark.parametrize("flags", [("--no-syscont",), ("--no-sysvisor-fs",)])
def test_a_terminal(user_runtime: Runtime, owned: Bundle, flags: tuple[str, ...]) -> None:
    """It reaches its user, whose command may not look into the process that makes it, and so does that of `exec`."""
    user_runtime.flags = flags
    name = user_runtime.id()
    if "--no-syscont" in flags:
        plain(owned)
    owned.process.update(terminal=True)
    owned.sh("tty; read x; exit 3")
    with on_terminal(user_runtime, "run", "--bundle", owned.path, name) as terminal:
        terminal.expect("/dev/pts/0")
        with on_terminal(user_runtime, "exec", "--tty", name, "tty") as other:
            other.expect("/dev/pts/1")
            assert other.wait() == 0
        terminal.line("")
        assert terminal.wait() == 3


def test_more_ids_by_the_helpers(user_runtime: Runtime, owned: Bundle) -> None:
    """A mapping of subordinate ids is written by newuidmap and newgidmap; other users exist inside then."""
    user_runtime.flags = ("--no-syscont",)
    plain(owned, "/bin/sh", "-c", "cat /proc/self/uid_map; id -u; cat /proc/self/setgroups", mappings=MAPPED)
    owned.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [10, 20]}
    owned.save()
    output = user_runtime("run", "--bundle", owned.path, user_runtime.id()).stdout
    assert uid_map(output) == MAPPED
    assert output.splitlines()[2:] == ["1000", "allow"]


def test_groups_that_cannot_be_had(user_runtime: Runtime, owned: Bundle) -> None:
    """Where only the user is mapped, groups may not be set: asked for, that is an error and not silence."""
    user_runtime.flags = ("--no-syscont",)
    plain(owned, "/bin/true")
    owned.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [0]}
    owned.save()
    refused = user_runtime.fails("run", "--bundle", owned.path, user_runtime.id()).stderr
    assert "setgroups: operation not permitted" in refused


def test_a_system_container(user_runtime: Runtime, owned: Bundle) -> None:
    """An ordinary user has system containers, too: every capability inside, mounts, 65536 ids, files of its own."""
    owned.sh(
        "cat /proc/self/uid_map; grep CapEff /proc/self/status; mount -t tmpfs none /mnt && mount -t proc none /mnt &&"
        " touch /made && stat -c %u /made; hostname inside && hostname; unshare -Urpf --mount-proc true; echo $?"
    )
    (owned.rootfs / "mnt").mkdir(exist_ok=True)
    done = user_runtime("run", "--bundle", owned.path, user_runtime.id())
    lines = done.stdout.splitlines()
    assert uid_map(done.stdout)[:2] == MAPPED
    assert int(lines[2].split()[1], 16).bit_count() > 38
    assert lines[3:] == ["0", "inside", "0"]
    assert (owned.rootfs / "made").stat().st_uid == UID


def test_a_rootfs_of_somebody_else(user_runtime: Runtime, bundle: Bundle) -> None:
    """Its files cannot be given other owners without root: told with what to do."""
    refused = user_runtime.fails("run", "--bundle", bundle.path, user_runtime.id()).stderr
    assert "not by you" in refused and "podman unshare" in refused


def test_without_subordinate_ids(user_runtime: Runtime, owned: Bundle) -> None:
    """A system container needs 65536 ids: the error names the file and the command that gives them."""
    (user_runtime.directory / "etc/subgid").write_text("")
    assert "/etc/subgid (usermod --add-subuids" in user_runtime.fails("run", "--bundle", owned.path, "x").stderr


def test_limits_need_a_delegated_cgroup(user_runtime: Runtime, owned: Bundle) -> None:
    """Without a cgroup of the user's own a limit is an error that says so, and no limit is none."""
    owned.linux["resources"] = {"memory": {"limit": 1 << 26}}
    owned.save()
    refused = user_runtime.fails("run", "--bundle", owned.path, user_runtime.id()).stderr
    assert "cannot set memory limit: container could not join or create cgroup" in refused


@pytest.fixture
def delegated(user_runtime: Runtime) -> Iterator[dict[str, pathlib.Path]]:
    """Cgroups that are the user's in every hierarchy, by controller; the user's commands run in there."""
    made = {}
    for controller, hierarchy in detect().by_controller().items():
        own = pathlib.Path(hierarchy.own, f"delegated-{user_runtime.token}")
        if not own.exists():
            own.mkdir()
            for name in ("", "cgroup.procs", "tasks", "cgroup.subtree_control"):
                if (own / name).exists():
                    os.chown(own / name, UID, UID)
            for name in ("cpuset.cpus", "cpuset.mems"):
                if (own / name).exists() and not (own / name).read_text().strip():
                    (own / name).write_text((own.parent / name).read_text())
        made[controller] = own
    wrapper = user_runtime.directory / "as-user"
    joins = "".join(f"echo $$ >{own}/cgroup.procs\n" for own in {*made.values()})
    wrapper.write_text(wrapper.read_text().replace("exec unshare", f"{joins}exec unshare"))
    yield made
    user_runtime.clean()
    for own in {*made.values()}:
        wait_until(functools.partial(_removed, own), 30, f"an end of {own}")


def _removed(cgroup: pathlib.Path) -> bool:
    """Whether a cgroup could be removed: the last of its processes may be ending still."""
    try:
        cgroup.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


@pytest.mark.skipif(detect().kind == "v2", reason="cgroup v1; to force it: boot with it (v2: test_systemd_user.py)")
def test_limits_in_delegated_cgroups(user_runtime: Runtime, owned: Bundle, delegated: dict[str, pathlib.Path]) -> None:
    """Where the user has cgroups the container gets its own below, with limits, without a word about devices."""
    owned.run("/bin/sleep", "1000")
    owned.linux["resources"] = {"pids": {"limit": 33}}
    owned.save()
    name = user_runtime.id()
    user_runtime("run", "--detach", "--bundle", owned.path, name)
    own = delegated["pids"] / name
    assert (own / "pids.max").read_text() == "33\n"
    user_runtime("update", "--pids-limit", "44", name)
    assert (own / "pids.max").read_text() == "44\n"
    user_runtime("pause", name)
    user_runtime("resume", name)
    user_runtime("delete", "--force", name)
    assert [path for path in delegated.values() if (path / name).exists()] == []


def test_root_may_ask_for_it(runtime: Runtime, bundle: Bundle) -> None:
    """`--rootless=true` as root only means to go on where no cgroup can be made; elsewhere nothing changes."""
    runtime.flags = ("--rootless=true", *runtime.flags)
    assert runtime("run", "--bundle", bundle.sh("id -u").path, runtime.id()).stdout == "0\n"


def test_events(user_runtime: Runtime, owned: Bundle) -> None:
    """Usage as far as the user has cgroups, and an end with the container."""
    bundle = owned.run("/bin/sleep", "1000")
    subprocess.run(["chown", "-R", f"{UID}:{UID}", bundle.path], check=True)
    name = user_runtime.id()
    user_runtime("run", "--detach", "--bundle", bundle.path, name)
    assert user_runtime("events", "--stats", name).json["data"]["network_interfaces"] is None
    watching = user_runtime.start_background("events", "--interval", "50ms", name)
    wait_until(lambda: watching.stdout, 30, "a report")
    user_runtime("kill", name, "KILL")
    assert watching.wait().returncode == 0
