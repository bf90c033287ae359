"""uidMappings and gidMappings: who the container's users are on the host."""

import os
import pathlib

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import FIRST_ID, observe, start, status, user_namespace
from tests.support.runtime import Runtime


def ids(pid: int, field: str) -> list[int]:
    """`Uid` or `Gid` of a process as the host sees it."""
    return [int(word) for word in status(pid)[field].split()]


def table(text: str) -> list[list[int]]:
    """A uid_map as numbers."""
    return [[int(word) for word in line.split()] for line in text.splitlines()]


def test_the_maps_are_as_given(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Several ranges for users, others for groups, all written whole; setgroups stays allowed."""
    user_namespace(bundle)
    uids = [(0, FIRST_ID, 1000), (1000, FIRST_ID + 5000, 10), (65534, FIRST_ID + 9000, 1)]
    gids = [(0, FIRST_ID + 20000, 2000)]
    for key, ranges in (("uidMappings", uids), ("gidMappings", gids)):
        bundle.linux[key] = [{"containerID": a, "hostID": b, "size": c} for a, b, c in ranges]
    seen = observe(plain_runtime, bundle, uid="cat /proc/self/uid_map", gid="cat /proc/self/gid_map",
                   groups="cat /proc/self/setgroups")  # fmt: skip
    assert table(seen["uid"]) == [list(r) for r in uids]
    assert table(seen["gid"]) == [list(r) for r in gids]
    assert seen["groups"] == "allow"


def test_root_inside_is_nobody_outside(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The host sees the mapped ids, on the process and on the files that it makes."""
    shared = bundle.path / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    user_namespace(bundle)
    bundle.config["mounts"].append({"destination": "/mnt", "source": str(shared), "options": ["bind"]})
    bundle.process["user"] = {"uid": 7, "gid": 8, "additionalGids": [9, 10]}
    name, pid = start(plain_runtime, bundle)
    assert ids(pid, "Uid") == [FIRST_ID + 7] * 4
    assert ids(pid, "Gid") == [FIRST_ID + 8] * 4
    assert ids(pid, "Groups") == [FIRST_ID + 9, FIRST_ID + 10]
    plain_runtime("exec", "--user", "0:0", name, "/bin/touch", "/mnt/file")
    found = (shared / "file").stat()
    assert (found.st_uid, found.st_gid) == (FIRST_ID, FIRST_ID)


def test_the_container_owns_its_namespaces(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Made in the user namespace: it may mount, set its name and configure its network, but not touch the host's."""
    user_namespace(bundle)
    seen = observe(
        plain_runtime,
        bundle,
        mount="mount -t tmpfs none /mnt && echo yes",
        name="hostname other && hostname",
        network="ip addr add 10.9.8.7/8 dev lo && echo yes",
        clock="date -s 2001-01-01 >/dev/null && echo set",
        module="cat /proc/kmsg",
        oom="echo -1000 >/proc/self/oom_score_adj && echo lowered",
    )
    assert (seen["mount"], seen["name"], seen["network"]) == ("yes", "other", "yes")
    assert "ermi" in seen["clock"] or "can't" in seen["clock"]
    assert "lowered" not in seen["oom"]


@pytest.mark.parametrize(
    ("mappings", "words"),
    [
        ([(0, FIRST_ID, 10), (5, FIRST_ID + 100, 10)], "overlap at 5"),
        ([(1, FIRST_ID, 10)], "no mapping found for uid 0"),
        ([(0, FIRST_ID, 0)], "must not be 0"),
    ],
)
def test_maps_that_the_kernel_would_refuse(
    plain_runtime: Runtime, bundle: Bundle, mappings: list[tuple[int, int, int]], words: str
) -> None:
    """They are told by what is wrong, before anything is made."""
    user_namespace(bundle)
    bundle.linux["uidMappings"] = [{"containerID": a, "hostID": b, "size": c} for a, b, c in mappings]
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "linux.uidMappings" in error and words in error


def test_a_rootfs_path_that_the_mapped_root_cannot_search(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The directories above the rootfs may be closed to it: they are opened by the host."""
    user_namespace(bundle)
    os.chmod(bundle.path, 0o700)
    assert observe(plain_runtime, bundle, who="id -u")["who"] == "0"
    assert pathlib.Path(bundle.path).stat().st_mode & 0o777 == 0o700
