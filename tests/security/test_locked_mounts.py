"""Flags of mounts that the container must not clear: a read-only volume is read-only for its root, too."""

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime
from tests.support.weakened import Weaken

ATTACK = """
mount -o remount,bind,rw,suid,dev,exec /vol
mkdir /other && mount --bind /vol /other && mount -o remount,bind,rw /other
unshare -m sh -c 'mount -o remount,bind,rw /vol; touch /vol/unshared'
touch /vol/direct /other/bound
umount /vol
true
"""


@pytest.fixture
def volume(workplace: pathlib.Path) -> pathlib.Path:
    path = workplace / "volume"
    path.mkdir(mode=0o755)
    (path / "file").write_text("the host's")
    return path


def with_volume(bundle: Bundle, source: pathlib.Path, *options: str) -> Bundle:
    bundle.config["mounts"].append(
        {"destination": "/vol", "type": "bind", "source": str(source), "options": ["rbind", *options]}
    )
    return bundle


def flags_inside(runtime: Runtime, bundle: Bundle, attack: str) -> set[str]:
    """The flags of the mount at /vol after `attack`."""
    bundle.sh(f"{attack} grep ' /vol ' /proc/self/mountinfo")
    words = runtime("run", "--bundle", bundle.path, runtime.id()).stdout.splitlines()[-1].split()
    return set(words[5].split(","))


def test_read_only_volume_stays_so(runtime: Runtime, bundle: Bundle, volume: pathlib.Path) -> None:
    """Root of a system container cannot remount a read-only bind, nor a bind of it, nor in a namespace of its own."""
    runtime("run", "--bundle", with_volume(bundle, volume, "ro").sh(ATTACK).path, runtime.id())
    assert os.listdir(volume) == ["file"]


def test_without_the_lock_the_host_is_written_to(
    runtime: Runtime, bundle: Bundle, volume: pathlib.Path, weaken: Weaken
) -> None:
    """The same attack on a copy of the library that does not lock: files of uid 0 appear on the host."""
    weak = weaken(runtime, "launch/locked.py", "if _is_restricted(tree, opened[number])]", "if not tree]")
    weak("run", "--bundle", with_volume(bundle, volume, "ro").sh(ATTACK).path, weak.id())
    assert "direct" in os.listdir(volume)


@pytest.mark.parametrize("flag", ["ro", "nosuid", "nodev", "noexec"])
def test_flags_of_the_spec_are_kept(runtime: Runtime, bundle: Bundle, volume: pathlib.Path, flag: str) -> None:
    """Whichever restricting flag a bind was given, remounting without it is refused."""
    attack = "mount -o remount,bind,rw,suid,dev,exec /vol;"
    assert flag in flags_inside(runtime, with_volume(bundle, volume, flag), attack)


def test_flags_of_the_host_are_kept(
    runtime: Runtime, bundle: Bundle, workplace: pathlib.Path, mounted: Callable[..., pathlib.Path]
) -> None:
    """What the host mounted with nosuid and nodev is not remounted without, in a volume that asks for nothing."""
    place = mounted(workplace / "host", "tmpfs", "nosuid,nodev,mode=755")
    attack = "mount -o remount,bind,suid,dev /vol;"
    assert {"nosuid", "nodev"} <= flags_inside(runtime, with_volume(bundle, place), attack)


def test_a_mount_of_the_host_in_the_rootfs_stays_so(
    runtime: Runtime, bundle: Bundle, volume: pathlib.Path, weaken: Weaken
) -> None:
    """What the host has mounted read-only in the root file system is as safe as a volume, and stays there."""
    place = bundle.rootfs / "vol"
    place.mkdir()
    volume.chmod(0o777)  # or it would not be the container's to write to anyway
    subprocess.run(["mount", "--bind", volume, place], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,bind,ro", place], check=True)
        bundle.sh(ATTACK + "ls /vol")
        assert runtime("run", "--bundle", bundle.path, runtime.id()).stdout == "file\n"
        assert os.listdir(volume) == ["file"]
        weak = weaken(runtime, "launch/locked.py", "and _has_mounts_below(tree.path)", "and False")
        weak("run", "--bundle", bundle.path, weak.id())
        assert len(os.listdir(volume)) > 1
    finally:
        subprocess.run(["umount", place], check=True)


def test_a_mount_of_the_host_in_the_rootfs_is_not_chowned(
    runtime: Runtime, bundle: Bundle, volume: pathlib.Path
) -> None:
    """--uid-shift chown leaves alone what the host has bound there, though it is of the same file system."""
    place = bundle.rootfs / "vol"
    place.mkdir()
    subprocess.run(["mount", "--bind", volume, place], check=True)
    try:
        runtime("run", "--uid-shift", "chown", "--bundle", bundle.path, runtime.id())
    finally:
        subprocess.run(["umount", place], check=True)
    assert (volume.stat().st_uid, (volume / "file").stat().st_uid) == (0, 0)
    assert (bundle.rootfs / "bin").stat().st_uid > 65535


def test_kernel_modules_of_the_host_are_out_of_reach(runtime: Runtime, bundle: Bundle) -> None:
    """/lib/modules, which every system container is shown, is no way to plant a kernel module on the host."""
    (bundle.rootfs / "lib").mkdir(exist_ok=True)
    directory = f"/lib/modules/{os.uname().release}"
    if not os.path.isdir(directory):
        pytest.skip(f"the host has no {directory}; to force it: make test-vm")
    before = sorted(os.listdir(directory))
    bundle.sh(f"mount -o remount,bind,rw {directory}; touch {directory}/planted; true")
    runtime("run", "--bundle", bundle.path, runtime.id())
    assert sorted(os.listdir(directory)) == before
