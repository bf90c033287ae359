"""CVE-2025-31133, CVE-2025-52565: devices that stand for something are proved to be that before they are used."""

import os
import pathlib
import stat
from collections.abc import Callable

import pytest

from sysvisor_runc.child import console
from sysvisor_runc.child.mounts import Rootfs
from sysvisor_runc.child.nodes import MakeDevice
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime
from tests.support.weakened import Weaken

SECRET = "not for everybody"


def masked(bundle: Bundle, workplace: pathlib.Path) -> Bundle:
    """A container whose /dev is a volume in which /dev/null is a link to a file of the attacker's choosing."""
    volume = workplace / "dev"
    volume.mkdir()
    (volume / "null").symlink_to("/chosen")
    (bundle.rootfs / "chosen").write_text("CHOSEN")
    (bundle.rootfs / "masked").write_text(SECRET)
    mounts = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    mounts.append({"destination": "/dev", "type": "bind", "source": str(volume), "options": ["rbind"]})
    bundle.config["mounts"] = mounts
    bundle.linux["maskedPaths"] = ["/masked"]
    return bundle.run("/bin/cat", "/masked")


def test_masking_by_a_swapped_null_device(plain_runtime: Runtime, bundle: Bundle, workplace: pathlib.Path) -> None:
    """A path is masked by the device 1:3 or the container does not start."""
    result = plain_runtime("run", "--bundle", masked(bundle, workplace).path, plain_runtime.id(), check=False)
    assert "CHOSEN" not in result.stdout and SECRET not in result.stdout


def test_without_the_proof_the_chosen_file_is_mounted(
    plain_runtime: Runtime, bundle: Bundle, workplace: pathlib.Path, weaken: Weaken
) -> None:
    """The same on a copy that takes what is called /dev/null."""
    check = "if not stat.S_ISCHR(status.st_mode) or status.st_rdev != os.makedev(1, 3):"
    weak = weaken(
        plain_runtime,
        "child/mounts.py",
        check,
        "if not status:",
        'fd = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW)',
        'fd = os.open("/dev/null", os.O_PATH | os.O_CLOEXEC)',
    )
    assert "CHOSEN" in weak("run", "--bundle", masked(bundle, workplace).path, weak.id()).stdout


@pytest.mark.parametrize(("kind", "number"), [(stat.S_IFCHR, (5, 2)), (stat.S_IFCHR, (1, 5)), (stat.S_IFIFO, (0, 0))])
def test_a_ptmx_that_is_none(tmp_path: pathlib.Path, kind: int, number: tuple[int, int]) -> None:
    """A device or pipe in the place of the container's /dev/pts/ptmx is not even opened."""
    (tmp_path / "dev/pts").mkdir(parents=True)
    os.mknod(tmp_path / "dev/pts/ptmx", kind | 0o666, os.makedev(*number))
    root = os.open(tmp_path, os.O_PATH)
    with pytest.raises(OSError, match="not a ptmx"):
        console.open_terminal(Rootfs(root, -1, {}))
    os.close(root)


def test_a_device_node_swapped_for_a_link(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Mode and owner of a device are set on the node that was made, not on what has its name a moment later."""
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.write_text("the host's")
    victim.chmod(0o600)
    rootfs = Rootfs(os.open(root, os.O_PATH), os.open("/proc", os.O_PATH), {})
    chown = os.chown

    def swapped(*args: object, **kwargs: object) -> None:
        (root / "device").rename(root / "away")
        (root / "device").symlink_to(victim)
        chown(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "chown", swapped)
    MakeDevice("/device", "c", 1, 3, 0o666, 0, 0, bind=False).execute(rootfs)
    monkeypatch.undo()
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    for fd in (rootfs.root, rootfs.proc):
        os.close(fd)


def test_chown_swapped_for_a_link(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """--uid-shift chown puts set-id bits back on the file it chowned, not on what has its name a moment later."""
    from sysvisor_runc.kernel import syscall as kernel
    from sysvisor_runc.launch import chown

    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    victim.write_text("the host's")
    victim.chmod(0o600)
    (root / "su").touch(mode=0o755)
    (root / "su").chmod(0o4755)

    def swapped(name: str, *args: int | bytes) -> int:
        result = kernel.syscall(name, *args)
        if (root / "su").exists() and not (root / "su").is_symlink():
            (root / "su").rename(root / "away")
            (root / "su").symlink_to(victim)
        return result

    monkeypatch.setattr(chown, "syscall", swapped)
    chown.chown_tree(str(root), (100000, 100000, 65536))
    assert stat.S_IMODE(victim.stat().st_mode) == 0o600
    assert (root / "away").stat().st_mode & stat.S_ISUID


def test_exec_terminal_in_a_container_without_devpts(plain_runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """exec --tty tells that there is no terminal to be had, and opens nothing else for it."""
    bundle = new_bundle("/bin/sleep", "100")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if not m["destination"].startswith("/dev")]
    bundle.save()
    (bundle.rootfs / "dev/pts").mkdir(parents=True, exist_ok=True)
    os.mknod(bundle.rootfs / "dev/pts/ptmx", stat.S_IFCHR | 0o666, os.makedev(1, 5))
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", bundle.path, name)
    args = ("exec", "--tty", "--detach", "--console-socket", "/nowhere", name, "/bin/true")
    assert "not a ptmx" in plain_runtime.fails(*args).stderr
