"""The root file system: read-only, its propagation, tmpcopyup, and paths to it."""

import os
import pathlib
import subprocess

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import mounted, observe, start, user_namespace
from tests.support.runtime import Runtime


def test_a_read_only_root(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Nothing on it can be written, what is mounted on it can; mount points were still made."""
    bundle.config["root"]["readonly"] = True
    bundle.config["mounts"].append({"destination": "/fresh/place", "type": "tmpfs", "source": "tmpfs"})
    seen = observe(
        plain_runtime,
        bundle,
        root="touch /x; true",
        place="touch /fresh/place/x && echo ok",
        dev="touch /dev/x && echo ok",
    )
    assert "Read-only" in seen["root"]
    assert (seen["place"], seen["dev"]) == ("ok", "ok")


def test_in_a_user_namespace_it_stays_read_only(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Even for a root with every capability over its own mounts: the host made it so."""
    (bundle.rootfs / "open").mkdir()
    (bundle.rootfs / "open").chmod(0o777)
    bundle.config["root"]["readonly"] = True
    user_namespace(bundle)
    seen = observe(plain_runtime, bundle, write="touch /open/x; true")
    assert "Read-only" in seen["write"]


@pytest.mark.parametrize(
    ("word", "fields"),
    [("", ["master"]), ("private", []), ("rprivate", []), ("slave", ["master"]), ("rslave", ["master"]),
     ("shared", ["master", "shared"]), ("rshared", ["master", "shared"]), ("unbindable", ["unbindable"])],
)  # fmt: skip
def test_propagation_of_the_root(
    plain_runtime: Runtime, bundle: Bundle, word: str, fields: list[str], request: pytest.FixtureRequest
) -> None:
    """As rootfsPropagation says, when the rootfs lies on a shared mount of the host; left out it is a slave."""
    subprocess.run(["mount", "--bind", str(bundle.rootfs), str(bundle.rootfs)], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "-R", str(bundle.rootfs)], check=True))
    subprocess.run(["mount", "--make-shared", str(bundle.rootfs)], check=True)
    if word:
        bundle.linux["rootfsPropagation"] = word
    _, pid = start(plain_runtime, bundle)
    found = sorted(field.split(":")[0] for field in mounted(pid)["/"]["propagation"])
    assert found == fields
    assert not [path for path in mounted(os.getpid()) if path.startswith(f"{bundle.rootfs}/")]
    plain_runtime.clean()


def test_tmpcopyup(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The tmpfs starts with what the directory holds: owners, modes, links, times, nested directories."""
    top = bundle.rootfs / "data"
    (top / "nested/deep").mkdir(parents=True)
    (top / "nested/file").write_text("text" * 5000)
    (top / "nested/deep/odd name\n").touch()
    (top / "link").symlink_to("/etc/nowhere")
    os.mkfifo(top / "fifo")
    os.chown(top / "nested/file", 12, 34)
    os.chmod(top / "nested/file", 0o4751)
    os.chmod(top, 0o1770)
    os.utime(top / "nested/file", (1, 1_000_000_000))
    bundle.config["mounts"].append(
        {"destination": "/data", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup", "nosuid", "size=1m"]}
    )
    seen = observe(
        plain_runtime,
        bundle,
        file="stat -c %u:%g:%a:%Y /data/nested/file; wc -c </data/nested/file",
        link="readlink /data/link",
        fifo="stat -c %F /data/fifo",
        mode="stat -c %a /data",
        odd="ls /data/nested/deep",
        write="echo new >/data/added && grep ' /data ' /proc/mounts",
    )
    assert seen["file"].split() == ["12:34:4751:1000000000", "20000"]
    assert (seen["link"], seen["fifo"], seen["mode"]) == ("/etc/nowhere", "fifo", "1770")
    assert seen["odd"] == "odd name?"
    assert "tmpfs" in seen["write"] and not (top / "added").exists()


def test_a_rootfs_by_absolute_path_and_through_a_link(plain_runtime: Runtime, bundle: Bundle) -> None:
    """root.path may be absolute or relative to the bundle, and a link on the host is the host's business."""
    (bundle.path / "alias").symlink_to("rootfs")
    for path in (str(bundle.rootfs), "alias", "./rootfs/../rootfs"):
        bundle.config["root"]["path"] = path
        assert observe(plain_runtime, bundle, who="echo here")["who"] == "here"


def test_what_is_no_rootfs(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A missing one and a file are told as root.path."""
    (bundle.path / "file").touch()
    for path, words in (("missing", "no such file"), ("file", "not a directory")):
        bundle.config["root"]["path"] = path
        bundle.save()
        error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
        assert "root.path" in error and words in error


def test_the_hosts_root_is_out_of_reach(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Nothing of the old root is left to climb to: neither its mounts nor by `..`, with the same inode for both."""
    outside = pathlib.Path("/")
    seen = observe(
        plain_runtime, bundle, mounts="cut -d' ' -f2 /proc/mounts | sort -u", up="cd /..; ls", pivot="ls -a /"
    )
    assert str(bundle.rootfs) not in seen["mounts"]
    assert "config.json" not in seen["up"]
    assert len([m for m in seen["mounts"].split() if m == "/"]) == 1
    assert outside.is_dir()


def test_no_pivot(plain_runtime: Runtime, bundle: Bundle) -> None:
    """--no-pivot gives the same view where pivot_root cannot work; exec follows it."""
    bundle.run("/bin/sleep", "1000")
    name = plain_runtime.id()
    plain_runtime("run", "--no-pivot", "--detach", "--bundle", bundle.path, name)
    found = plain_runtime("exec", name, "/bin/ls", "/").stdout.split()
    assert sorted(found) == sorted({*os.listdir(bundle.rootfs), *found})
    assert "bin" in found and "config.json" not in plain_runtime("exec", name, "/bin/ls", "/..").stdout
