"""Containers that join another one's namespaces, as in a pod: one user namespace, ids, processes, messages, network."""

import os
import pathlib
import subprocess
from collections.abc import Callable

from sysvisor_runc.plan.namespaces import NAMESPACES
from sysvisor_runc.state.subid import SIZE, free, registry_path
from tests.support.bundle import Bundle
from tests.support.inside import observe, start
from tests.support.runtime import Runtime

NewBundle = Callable[..., Bundle]


def join(bundle: Bundle, process: int, *types: str) -> Bundle:
    """Have the bundle join a process' namespaces of these types."""
    for namespace in bundle.linux["namespaces"]:
        if namespace["type"] in types:
            namespace["path"] = f"/proc/{process}/ns/{NAMESPACES[namespace['type']][1]}"
    return bundle


def test_a_pod_is_one_machine(runtime: Runtime, new_bundle: NewBundle) -> None:
    """Who joins a system container's namespaces has its ids, sees its processes and messages, and rules its network."""
    _, pid = start(runtime, new_bundle())
    own = pathlib.Path(f"/proc/{pid}/uid_map").read_text().split()
    seen = observe(
        runtime,
        join(new_bundle(), pid, "pid", "ipc", "network", "uts"),
        ids="cat /proc/self/uid_map",
        processes="ps",
        queues="mount | grep -c 'mqueue on /dev/mqueue'",
        link="ip link set lo down && ip link set lo up && echo changed",
        devices="ls -ln /dev/null | cut -c1-20; stat -c %u /bin /dev /dev/null",
        cgroup="mkdir /sys/fs/cgroup/pids/x /sys/fs/cgroup/x 2>/dev/null; ls -d /sys/fs/cgroup/*/x /sys/fs/cgroup/x",
        sysfs="mount | grep -c 'on /sys type sysfs'",
    )
    assert seen["ids"].split() == own
    assert "sleep 1000" in seen["processes"]
    assert seen["queues"] == "1"
    assert seen["link"] == "changed"
    assert seen["devices"].split()[-3:] == ["0", "0", "0"]
    assert "/x" in seen["cgroup"]
    assert seen["sysfs"] == "1"


def test_ids_stay_taken(runtime: Runtime, new_bundle: NewBundle) -> None:
    """The range is free again only once the last container of the pod has gone, not with the one that brought it."""
    first, pid = start(runtime, new_bundle())
    second, other = start(runtime, join(new_bundle(), pid, "ipc"))
    uid = pathlib.Path(f"/proc/{other}/uid_map").read_text().split()[1]
    link = pathlib.Path(registry_path()) / f"{uid}-{uid}"
    owner = os.readlink(link)
    assert owner == str(runtime.root / first)
    runtime("delete", "--force", first)
    assert os.readlink(link) == owner
    assert "0" in runtime("exec", second, "id", "-u").stdout
    third, another = start(runtime, new_bundle())
    assert pathlib.Path(f"/proc/{another}/uid_map").read_text().split()[1] != uid
    for name in (second, third):
        runtime("delete", "--force", name)
    free(owner, {"uid": int(uid), "gid": int(uid), "size": SIZE})
    assert not link.is_symlink()
    assert not link.with_name(link.name + "+").is_symlink()


def test_a_pinned_user_namespace(runtime: Runtime, new_bundle: NewBundle, tmp_path: pathlib.Path) -> None:
    """Who joins a user namespace by a file that it is pinned to, as CRI-O gives it, has its ids in volumes, too."""
    _, pid = start(runtime, new_bundle())
    pin = tmp_path / "user"
    pin.touch()
    subprocess.run(["mount", "--bind", f"/proc/{pid}/ns/user", pin], check=True)
    try:
        bundle = join(new_bundle(), pid, "ipc", "network", "uts")
        bundle.linux["namespaces"].append({"type": "user", "path": str(pin)})
        (tmp_path / "volume").mkdir()
        volume = {"destination": "/v", "type": "bind", "source": str(tmp_path / "volume"), "options": ["rbind"]}
        bundle.config["mounts"].append(volume)
        seen = observe(runtime, bundle, ids="cat /proc/self/uid_map", made="touch /v/x; stat -c %u /v /v/x")
    finally:
        subprocess.run(["umount", pin], check=True)
    assert seen["ids"].split() == pathlib.Path(f"/proc/{pid}/uid_map").read_text().split()
    assert seen["made"].split() == ["0", "0"]
