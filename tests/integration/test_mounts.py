"""`mounts`: every option, recursive ones, propagation, file systems, and where a mount may not go."""

import functools
import os
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import mounted, observe, start, user_namespace
from tests.support.runtime import Runtime

ATTRIBUTES = {
    "ro": {"ro"},
    "rw": {"rw"},
    "nosuid": {"nosuid"},
    "nodev": {"nodev"},
    "noexec": {"noexec"},
    "noatime": {"noatime"},
    "nodiratime": {"nodiratime"},
    "relatime": {"relatime"},
    "nosymfollow": {"nosymfollow"},
}
# What /proc/PID/mountinfo shows when nothing was asked for; strictatime shows as no word at all.
DEFAULT = {"rw", "relatime"}


def add(bundle: Bundle, destination: str, kind: str, source: str, *options: str) -> None:
    """One more entry of `mounts`."""
    bundle.config["mounts"].append(
        {"destination": destination, "type": kind, "source": source, "options": list(options)}
    )


@pytest.fixture
def tree(bundle: Bundle) -> Iterator[pathlib.Path]:
    """A directory with a tmpfs mounted on `inner` and another below that, on the host."""
    top = bundle.path / "tree"
    for path in (top, top / "inner", top / "inner/deep"):
        path.mkdir()
        if path != top:
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
    yield top
    subprocess.run(["umount", "-R", str(top / "inner")], check=True)


def test_attributes_of_a_mount(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Each attribute word, on a new file system and on a bind mount, as the kernel shows it."""
    source = bundle.path / "source"
    source.mkdir()
    for word in ATTRIBUTES:
        add(bundle, f"/mnt/new-{word}", "tmpfs", "tmpfs", word)
        add(bundle, f"/mnt/bind-{word}", "bind", str(source), "bind", word)
    add(bundle, "/mnt/strict", "tmpfs", "tmpfs", "strictatime")
    add(bundle, "/mnt/last", "tmpfs", "tmpfs", "ro", "rw", "noexec", "exec", "noatime", "atime")
    _, pid = start(plain_runtime, bundle)
    seen = mounted(pid)
    opposite = {"ro": "rw", "noatime": "relatime"}
    for word, shown in ATTRIBUTES.items():
        expected = (DEFAULT - {opposite.get(word, "")}) | shown
        assert seen[f"/mnt/new-{word}"]["options"] == expected, word
        assert seen[f"/mnt/bind-{word}"]["options"] == expected, word
    assert seen["/mnt/strict"]["options"] == {"rw"}
    assert seen["/mnt/last"]["options"] == DEFAULT


def test_parameters_of_the_file_system(plain_runtime: Runtime, bundle: Bundle) -> None:
    """What is no attribute goes to the file system, flags of the super block included; an empty word says nothing."""
    add(bundle, "/mnt/a", "tmpfs", "some-name", "size=64k", "mode=1750", "uid=3", "gid=4", "nr_inodes=77")
    add(bundle, "/mnt/b", "tmpfs", "tmpfs", "sync", "", "dirsync", "lazytime")
    _, pid = start(plain_runtime, bundle)
    seen = mounted(pid)
    assert seen["/mnt/a"]["data"] >= {"size=64k", "mode=1750", "uid=3", "gid=4", "nr_inodes=77"}
    assert seen["/mnt/a"]["source"] == "some-name"
    assert seen["/mnt/b"]["data"] >= {"sync", "dirsync", "lazytime"}


def test_bind_and_rbind(plain_runtime: Runtime, bundle: Bundle, tree: pathlib.Path) -> None:
    """bind shows the one mount, rbind what is mounted below as well; `ro` concerns the top, `rro` the whole tree."""
    add(bundle, "/mnt/bind", "bind", str(tree), "bind")
    add(bundle, "/mnt/rbind", "bind", str(tree), "rbind", "ro")
    add(
        bundle,
        "/mnt/rro",
        "bind",
        str(tree),
        "rbind",
        "rro",
        "rnosuid",
        "rnodev",
        "rnoexec",
        "rnoatime",
        "rnosymfollow",
    )
    add(bundle, "/mnt/mixed", "", str(tree), "rbind", "rro", "rw")
    _, pid = start(plain_runtime, bundle)
    seen = mounted(pid)
    assert "/mnt/bind/inner" not in seen
    assert "ro" in seen["/mnt/rbind"]["options"]
    for below in ("/inner", "/inner/deep"):
        assert "rw" in seen[f"/mnt/rbind{below}"]["options"]
    every = {"ro", "nosuid", "nodev", "noexec", "noatime", "nosymfollow"}
    for below in ("", "/inner", "/inner/deep"):
        assert seen[f"/mnt/rro{below}"]["options"] == every
    assert "rw" in seen["/mnt/mixed"]["options"]
    assert "ro" in seen["/mnt/mixed/inner"]["options"]


@pytest.mark.parametrize("kind", ["plain_runtime", "runtime"])
def test_a_source_of_the_containers_own(bundle: Bundle, kind: str, request: pytest.FixtureRequest) -> None:
    """A bind from the root file system shows what is mounted there by then, as the container owns it."""
    (bundle.rootfs / "in").mkdir()
    volume = bundle.path / "volume"
    (volume / "deep").mkdir(parents=True)
    (volume / "deep/file").write_text("from the host\n")
    add(bundle, "/in", "bind", str(volume), "bind")
    add(bundle, f"{bundle.rootfs}/out", "bind", f"{bundle.rootfs}/in/deep", "bind")
    # On top of what has just been shown elsewhere.
    add(bundle, "/in", "bind", str(bundle.path / "volume/deep"), "bind")
    look = "cat /out/file /in/file; stat -c %u /out/file"
    seen = observe(request.getfixturevalue(kind), bundle, seen=look)["seen"]
    assert seen.split("\n") == ["from the host", "from the host", "0"]


def test_recursive_words_that_give_back(plain_runtime: Runtime, bundle: Bundle, tree: pathlib.Path) -> None:
    """rrw, rsuid and the like clear on the whole tree what the host has set."""
    flags = "remount,bind,ro,nosuid,nodev,noexec,noatime"
    subprocess.run(["mount", "-o", flags, str(tree / "inner")], check=True)
    add(bundle, "/mnt/kept", "bind", str(tree), "rbind")
    add(bundle, "/mnt/back", "bind", str(tree), "rbind", "rrw", "rsuid", "rdev", "rexec", "rrelatime")
    _, pid = start(plain_runtime, bundle)
    seen = mounted(pid)
    assert seen["/mnt/kept/inner"]["options"] == {"ro", "nosuid", "nodev", "noexec", "noatime"}
    assert seen["/mnt/back/inner"]["options"] == DEFAULT
    subprocess.run(["mount", "-o", "remount,bind,rw,exec", str(tree / "inner")], check=True)


@pytest.fixture(params=["private", "shared"])
def hosts_mount(request: pytest.FixtureRequest, bundle: Bundle) -> Iterator[pathlib.Path]:
    """A mount of the host's; systemd makes them shared."""
    source = bundle.path / "source"
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", f"--make-{request.param}", "none", source], check=True)
    yield source
    subprocess.run(["umount", "-l", source], check=True)


@pytest.mark.parametrize(
    ("word", "fields"),
    [("shared", ["shared"]), ("rslave", []), ("private", []), ("unbindable", ["unbindable"]), ("rshared", ["shared"])],
)
def test_propagation(
    request: pytest.FixtureRequest,
    plain_runtime: Runtime,
    bundle: Bundle,
    hosts_mount: pathlib.Path,
    word: str,
    fields: list[str],
) -> None:
    """Of one mount; a recursive one reaches what is mounted on it. A shared one is followed, unless told not to."""
    follows = request.node.callspec.params["hosts_mount"] == "shared" and word in ("shared", "rslave", "rshared")
    add(bundle, "/mnt", "bind", str(hosts_mount), "bind", word)
    _, pid = start(plain_runtime, bundle)
    found = [field.split(":")[0] for field in mounted(pid)["/mnt"]["propagation"]]
    assert found == [*fields, *["master"] * follows]


def test_mounts_travel_as_their_propagation_says(
    plain_runtime: Runtime, bundle: Bundle, request: pytest.FixtureRequest
) -> None:
    """From the host into a slave, both ways when shared, never out of a slave."""
    for name in ("slave", "shared"):
        path = bundle.path / name
        path.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(path)], check=True)
        subprocess.run(["mount", "--make-shared", str(path)], check=True)
        request.addfinalizer(functools.partial(subprocess.run, ["umount", "-R", str(path)], check=True))
        for below in ("from-host", "from-inside"):
            (path / below).mkdir()
        add(bundle, f"/{name}", "bind", str(path), "rbind", f"r{name}")
    # A shared mount below a root that is a slave stays one only if the root lets it: ask for that.
    bundle.linux["rootfsPropagation"] = "rshared"
    name, pid = start(plain_runtime, bundle)
    for kind in ("slave", "shared"):
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(bundle.path / kind / "from-host")], check=True)
        plain_runtime("exec", name, "/bin/mount", "-t", "tmpfs", "none", f"/{kind}/from-inside")
        assert f"/{kind}/from-host" in mounted(pid), kind
    own = mounted("self")  # type: ignore[arg-type]  # /proc/self serves as well as a number
    assert str(bundle.path / "shared/from-inside") in own
    assert str(bundle.path / "slave/from-inside") not in own


def test_remount_changes_what_is_there(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The option `remount` makes no new mount."""
    add(bundle, "/mnt", "tmpfs", "tmpfs", "nosuid")
    add(bundle, "/mnt", "tmpfs", "tmpfs", "remount", "ro", "noexec")
    _, pid = start(plain_runtime, bundle)
    lines = [line for line in pathlib.Path(f"/proc/{pid}/mountinfo").read_text().splitlines() if " /mnt " in line]
    assert len(lines) == 1
    assert mounted(pid)["/mnt"]["options"] >= {"ro", "noexec"}


def test_mounts_come_in_order(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A later one covers an earlier one and may lie in it."""
    first, second = bundle.path / "first", bundle.path / "second"
    for path in (first, second):
        path.mkdir()
        (path / path.name).touch()
    add(bundle, "/mnt", "bind", str(first), "bind")
    add(bundle, "/mnt", "bind", str(second), "bind")
    add(bundle, "/mnt/deeper/still", "tmpfs", "tmpfs")
    seen = observe(plain_runtime, bundle, names="ls /mnt /mnt/deeper")
    assert "second" in seen["names"] and "first" not in seen["names"] and "still" in seen["names"]


def test_bind_of_files_and_relative_sources(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A file is bound on a file, made with its directories where missing; a relative source starts at the bundle."""
    (bundle.path / "note").write_text("from the bundle\n")
    add(bundle, "/new/place/note", "bind", "note", "bind", "ro")
    seen = observe(plain_runtime, bundle, text="cat /new/place/note", write="echo x >/new/place/note; true")
    assert seen["text"] == "from the bundle"
    assert "Read-only" in seen["write"]


def test_links_in_a_destination_stay_inside(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Absolute, climbing and dangling ones lead to places in the rootfs; nothing appears on the host."""
    outside = bundle.path / "outside"
    outside.mkdir()
    (bundle.rootfs / "absolute").symlink_to(outside)
    (bundle.rootfs / "climbing").symlink_to("../../../../../../../../" + str(outside))
    (bundle.rootfs / "dangling").symlink_to("/not/there/yet")
    for name in ("absolute", "climbing", "dangling"):
        add(bundle, f"/{name}/here", "tmpfs", "tmpfs")
    _, pid = start(plain_runtime, bundle)
    seen = mounted(pid)
    assert f"{outside}/here" in seen
    assert "/not/there/yet/here" in seen
    assert list(outside.iterdir()) == []


def test_kinds_of_file_systems(plain_runtime: Runtime, bundle: Bundle) -> None:
    """proc, sysfs, mqueue, devpts, ramfs and overlay; a long option list takes the older system call."""
    layers = [bundle.path / ("layer" + "x" * 60 + str(n)) for n in range(6)]
    for path in layers:
        path.mkdir()
        (path / f"from-{path.name[-1]}").touch()
    for name in ("upper", "work"):
        (bundle.path / name).mkdir()
    lower = ":".join(map(str, layers))
    add(bundle, "/mnt/long", "overlay", "overlay", f"lowerdir={lower}")
    add(bundle, "/mnt/overlay", "overlay", "overlay", f"lowerdir={layers[0]}",
        f"upperdir={bundle.path}/upper", f"workdir={bundle.path}/work")  # fmt: skip
    add(bundle, "/mnt/ram", "ramfs", "ramfs", "mode=700")
    seen = observe(plain_runtime, bundle, long="ls /mnt/long", write="touch /mnt/overlay/new; ls /mnt/overlay",
                   kinds="cut -d' ' -f2,3 /proc/mounts")  # fmt: skip
    assert len(seen["long"].split()) == 6
    assert "new" in seen["write"] and (bundle.path / "upper/new").exists()
    for line in ("/proc proc", "/sys sysfs", "/dev/mqueue mqueue", "/dev/pts devpts", "/mnt/ram ramfs"):
        assert line in seen["kinds"].splitlines()


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"destination": "/mnt", "type": "nosuchfs", "source": "x"}, "nosuchfs"),
        ({"destination": "/mnt", "type": "bind", "source": "/not/there", "options": ["bind"]}, "'/not/there'"),
        ({"destination": "/mnt", "source": "/etc", "options": ["bind", "size=1"]}, "filesystem-specific"),
        ({"destination": "/mnt", "type": "tmpfs", "source": "x", "options": ["size=nonsense"]}, "size"),
        ({"destination": "/proc/self/attr", "type": "tmpfs", "source": "x"}, "inside /proc"),
        ({"destination": "/", "type": "tmpfs", "source": "x"}, "root of the container"),
        ({"destination": "/etc/passwd/deeper", "type": "tmpfs", "source": "x"}, "/etc/passwd/deeper"),
        ({"destination": "/mnt", "type": "proc", "source": "x", "options": ["tmpcopyup"]}, "tmpcopyup"),
    ],
)
def test_what_cannot_be_mounted(plain_runtime: Runtime, bundle: Bundle, entry: dict[str, object], words: str) -> None:
    """One line says which mount and why."""
    bundle.config["mounts"].append(entry)
    bundle.save()
    assert words in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr


def test_proc_on_a_link_is_refused(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A rootfs that makes /proc a symbolic link would get our writes elsewhere."""
    os.rmdir(bundle.rootfs / "proc")
    (bundle.rootfs / "proc").symlink_to("/tmp")
    bundle.save()
    assert "ordinary directory" in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr


def test_mounts_in_a_user_namespace(plain_runtime: Runtime, bundle: Bundle) -> None:
    """tmpfs with owners, binds of the host's files with more attributes than the host has set."""
    source = bundle.path / "source"
    source.mkdir()
    user_namespace(bundle)
    add(bundle, "/mnt", "tmpfs", "tmpfs", "uid=5", "gid=6", "mode=700", "nosuid")
    add(bundle, "/tmp", "bind", str(source), "rbind", "ro", "nosuid", "noexec", "rslave")
    seen = observe(plain_runtime, bundle, owner="stat -c %u:%g:%a /mnt", write="touch /tmp/x; true")
    assert seen["owner"] == "5:6:700"
    assert "Read-only" in seen["write"]


def test_a_locked_mount_keeps_its_attributes(
    plain_runtime: Runtime, new_bundle: Callable[..., Bundle], request: pytest.FixtureRequest
) -> None:
    """A source that is read-only on the host can be bound into a user namespace and stays read-only."""
    bundle = new_bundle()
    source = bundle.path / "source"
    source.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "ro,nodev,nosuid", "tmpfs", str(source)], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", str(source)], check=True))
    user_namespace(bundle)
    add(bundle, "/mnt", "bind", str(source), "bind")
    _, pid = start(plain_runtime, bundle)
    assert mounted(pid)["/mnt"]["options"] >= {"ro", "nodev", "nosuid"}
