"""System containers on a root file system that is a mounted overlay, as Docker, containerd and Podman hand one over."""

import os
import pathlib
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.bundle import Bundle, make_bundle
from tests.support.runtime import Runtime

MakeOverlay = Callable[..., "Overlay"]


class Overlay:
    """A bundle whose rootfs is an overlay mounted the way a client does it: `diff` and `work` in one directory."""

    def __init__(self, bundle: Bundle, layers: pathlib.Path, upper: pathlib.Path) -> None:
        self.bundle = bundle
        self.layers = layers
        self.upper = upper

    @property
    def seen(self) -> pathlib.Path:
        """The client's own mount."""
        return self.bundle.rootfs

    def works(self) -> list[str]:
        """Our work directories that are there."""
        return [path.name for path in self.upper.parent.iterdir() if "sysvisor" in path.name]


@pytest.fixture
def overlay(workplace: pathlib.Path, rootfs_template: pathlib.Path) -> Iterator[MakeOverlay]:
    """Makes overlays: of the busybox layer and `count` small ones, mounted with more options."""
    mounted: list[pathlib.Path] = []

    def make(*options: str, count: int = 1, name: str = "o", relative: bool = False, readonly: bool = False) -> Overlay:
        top = workplace / name
        bundle = make_bundle(top / "bundle", rootfs_template)
        layers = top / "layers"
        layers.mkdir()
        bundle.rootfs.rename(layers / "image")
        bundle.rootfs.mkdir()
        (layers / "image/etc").mkdir(exist_ok=True)
        (layers / "image/etc/removed").write_text("to be removed\n")
        (layers / "image/etc/changed").write_text("old\n")
        (layers / "image/home").mkdir(exist_ok=True)
        os.chown(layers / "image/home", 1000, 1000)
        for number in range(count):
            (layers / f"{number}/many").mkdir(parents=True)
            (layers / f"{number}/many/{number}").write_text(f"{number}\n")
        names = [*map(str, range(count)), "image"]
        paths = [f"layers/{entry}" if relative else _escaped(str(layers / entry)) for entry in names]
        lower = ":".join(paths)
        upper = top / "writable/diff"
        (top / "writable/work").mkdir(parents=True)
        upper.mkdir()
        given = [f"lowerdir={lower}", *options]
        if not readonly:
            given += [f"upperdir={_escaped(str(upper))}", f"workdir={_escaped(str(top / 'writable/work'))}"]
        command = ["mount", "-t", "overlay", "overlay", "-o", ",".join(given), str(bundle.rootfs)]
        subprocess.run(command, check=True, cwd=top)
        mounted.append(bundle.rootfs)
        return Overlay(bundle, layers, upper)

    yield make
    for path in mounted:
        subprocess.run(["umount", "--lazy", str(path)], check=True)
        shutil.rmtree(path.parent.parent)


def _escaped(path: str) -> str:
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


CHANGES = """
set -e
stat -c '%u:%g %n' / /bin /etc /home
rm /etc/removed
echo new > /etc/changed
mkdir /made && chown 1000:1000 /made && echo x > /made/file
rm -r /home && mkdir /home
mknod /made/pipe p
ls /many | wc -l
"""


def test_owners_and_changes(runtime: Runtime, overlay: MakeOverlay) -> None:
    """Files belong to who owns them in the image, all changes land in the upper layer with ids as on the inside, and
    nothing of the layers is chowned."""
    made = overlay()
    done = runtime("run", "-b", made.bundle.sh(CHANGES).path, runtime.id())
    assert done.stdout.splitlines() == ["0:0 /", "0:0 /bin", "0:0 /etc", "1000:1000 /home", "1"]
    upper = made.upper
    assert {path.name for path in upper.iterdir()} >= {"etc", "made", "home"}
    removed = os.lstat(upper / "etc/removed")
    assert stat.S_ISCHR(removed.st_mode) and removed.st_rdev == 0 and (removed.st_uid, removed.st_gid) == (0, 0)
    assert (upper / "etc/changed").read_text() == "new\n"
    assert os.getxattr(upper / "home", "trusted.overlay.opaque") == b"y"
    for path, owner in ((upper / "etc/changed", 0), (upper / "made", 1000), (upper / "home", 0)):
        assert os.stat(path).st_uid == owner, path
    assert {os.lstat(path).st_uid for path in made.layers.rglob("*")} == {0, 1000}
    assert made.works() == []


def test_many_layers(runtime: Runtime, overlay: MakeOverlay) -> None:
    """Some hundred layers, given relative to a directory as the clients do for a list that would not fit a page."""
    made = overlay(count=120, relative=True)
    assert runtime("run", "-b", made.bundle.sh("ls /many | wc -l").path, runtime.id()).stdout == "120\n"


@pytest.mark.parametrize("name", ["a:b", "with space", "comma,here", "back\\slash", "ünïcode"])
def test_names_with_escapes(runtime: Runtime, overlay: MakeOverlay, name: str) -> None:
    """Layers are found whatever their directories are called."""
    made = overlay(name=name)
    assert runtime("run", "-b", made.bundle.sh("echo x > /f; cat /many/0").path, runtime.id()).stdout == "0\n"
    assert (made.upper / "f").read_text() == "x\n"


@pytest.mark.parametrize(
    ("option", "shown"),
    [
        ("volatile", "volatile"),
        ("metacopy=on,redirect_dir=on", "metacopy=on"),
        ("redirect_dir=nofollow", "redirect_dir=nofollow"),
        ("index=on", ""),  # which only one mount of an upper layer can have
        ("xino=on", ""),  # which is only shown where it makes a difference
    ],
)
def test_options(runtime: Runtime, overlay: MakeOverlay, option: str, shown: str) -> None:
    """What the client mounted with holds for our mount too, as far as it says how layers are read."""
    made = overlay(option)
    script = "chmod 600 /etc/changed; cat /etc/changed; grep ' / ' /proc/self/mountinfo"
    lines = runtime("run", "-b", made.bundle.sh(script).path, runtime.id()).stdout.splitlines()
    assert lines[0] == "old"
    assert shown in lines[1]
    assert made.works() == []


def test_readonly_overlay(runtime: Runtime, overlay: MakeOverlay) -> None:
    """An overlay without an upper layer is shown read-only."""
    made = overlay(readonly=True)
    result = runtime("run", "-b", made.bundle.sh("cat /etc/changed; echo x > /f").path, runtime.id(), check=False)
    assert result.stdout == "old\n"
    assert "Read-only file system" in result.stderr


def test_it_goes_with_the_container(runtime: Runtime, overlay: MakeOverlay) -> None:
    """The work directory of ours is there while the container is, and the client can unmount its overlay meanwhile."""
    made, name = overlay(), runtime.id()
    runtime("run", "-d", "-b", made.bundle.run("/bin/sleep", "1000").path, name)
    assert len(made.works()) == 1
    assert runtime("exec", name, "stat", "-c", "%u", "/bin").stdout == "0\n"
    runtime("delete", "--force", name)
    assert made.works() == []


@pytest.mark.parametrize("step", ["trees", "clone", "child-mounts", "ready", "record"])
def test_a_killed_launch(runtime: Runtime, overlay: MakeOverlay, step: str) -> None:
    """What a launch leaves that is killed at any step, `delete --force` removes."""
    made, name = overlay(), runtime.id()
    env = {**os.environ, "SYSVISOR_RUNC_FAULT": f"kill:{step}"}
    runtime("create", "-b", made.bundle.path, name, check=False, env=env)
    runtime("delete", "--force", name)
    assert made.works() == []


def test_a_failed_launch(runtime: Runtime, overlay: MakeOverlay) -> None:
    """A launch that fails takes its work directory with it."""
    made = overlay()
    runtime.fails("run", "-b", made.bundle.run("/no/such/program").path, runtime.id())
    assert made.works() == []


def test_a_directory_in_an_overlay(runtime: Runtime, overlay: MakeOverlay) -> None:
    """A rootfs that lies deeper in an overlay is refused: mounting all of it anew would be more than was asked for."""
    made = overlay()
    deeper = made.seen / "deeper"
    deeper.mkdir()
    made.bundle.config["root"]["path"] = str(deeper)
    error = runtime.fails("run", "-b", made.bundle.save().path, runtime.id()).stderr
    assert "overlayfs does not support ID-mapped mounts" in error


def test_layers_that_are_gone(runtime: Runtime, overlay: MakeOverlay) -> None:
    """A layer that cannot be found is named."""
    made = overlay()
    (made.layers / "0").rename(made.layers / "moved")
    error = runtime.fails("run", "-b", made.bundle.path, runtime.id()).stderr
    assert "its layer" in error
    assert "layers/0' cannot be opened: no such file or directory" in error


def test_pause_and_resume_bring_both_views_in_step(runtime: Runtime, overlay: MakeOverlay) -> None:
    """After `pause` the client's mount shows what the container has changed, after `resume` the container what the
    client has: for `docker cp`."""
    made, name = overlay(), runtime.id()
    seen = made.seen
    assert (seen / "etc/changed").read_text() == "old\n"
    assert not (seen / "new").exists()
    runtime("run", "-d", "-b", made.bundle.run("/bin/sleep", "1000").path, name)
    runtime("exec", name, "sh", "-c", "echo new > /etc/changed; echo > /new; rm /etc/removed; test ! -e /given")
    runtime("pause", name)
    assert (seen / "etc/changed").read_text() == "new\n"
    assert (seen / "new").exists()
    assert not (seen / "etc/removed").exists()
    (seen / "given").write_text("given\n")
    (seen / "etc/changed").write_text("from outside\n")
    runtime("resume", name)
    assert runtime("exec", name, "cat", "/given", "/etc/changed").stdout == "given\nfrom outside\n"
    assert runtime("exec", name, "stat", "-c", "%u", "/given").stdout == "0\n"
    runtime("delete", "--force", name)


@pytest.mark.parametrize("kind", ["writable", "read-only", "in an overlay"])
def test_a_volume(runtime: Runtime, new_bundle: Callable[..., Bundle], overlay: MakeOverlay, kind: str) -> None:
    """An overlay that is bound read-only, as containerd does with an image as a volume, or in another overlay with an
    empty directory, as CRI-O does, shows its owners; nothing stays of it."""
    image = overlay(readonly=kind == "read-only")
    if kind != "read-only":
        (image.seen / "etc/removed").unlink()
        (image.seen / "etc/changed").write_text("new\n")
    source, bundle = str(image.seen), new_bundle()
    volume = {"destination": "/v", "type": "bind", "source": source, "options": ["rbind", "ro"]}
    if kind == "in an overlay":
        (image.layers / "empty").mkdir()
        volume |= {"type": "overlay", "source": "overlay", "options": [f"lowerdir={source}:{image.layers}/empty"]}
    bundle.config["mounts"].append(volume)
    script = "stat -c %u /v /v/home /v/etc/changed; cat /v/etc/changed; ls /v/etc; touch /v/x 2>&1 | grep -o Read-only"
    result = runtime("run", "-b", bundle.sh(script).path, runtime.id())
    lines = result.stdout.splitlines()
    assert lines[:3] == ["0", "1000", "0"]
    assert lines[3] == ("old" if kind == "read-only" else "new")
    assert ("removed" in lines) == (kind == "read-only")
    assert lines[-1] == "Read-only"
    assert "belong to nobody" not in result.stderr
    assert image.works() == []


def test_a_volume_with_mounts_on_it(
    runtime: Runtime, new_bundle: Callable[..., Bundle], overlay: MakeOverlay, tmp_path: pathlib.Path
) -> None:
    """An overlay on which more is mounted is bound as it is, with a warning: its layers alone would not show that."""
    image, bundle = overlay(), new_bundle()
    (tmp_path / "inner").write_text("inner\n")
    subprocess.run(["mount", "--bind", tmp_path, image.seen / "home"], check=True)
    try:
        volume = {"destination": "/v", "type": "bind", "source": str(image.seen), "options": ["rbind", "ro"]}
        bundle.config["mounts"].append(volume)
        result = runtime("run", "-b", bundle.sh("cat /v/home/inner").path, runtime.id())
    finally:
        subprocess.run(["umount", image.seen / "home"], check=True)
    assert result.stdout == "inner\n"
    assert "/v: files will belong to nobody inside" in result.stderr
