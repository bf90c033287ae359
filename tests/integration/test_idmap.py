"""ID-mapped mounts: owners as the container sees them and as they are stored."""

import os
import pathlib
import subprocess

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import FIRST_ID, observe, user_namespace
from tests.support.runtime import Runtime

SHOW = "stat -c %u:%g"


def mappings(first: int, host: int, size: int = 65536) -> dict[str, list[dict[str, int]]]:
    """uidMappings and gidMappings of a mount: file ids from `first` show as host ids from `host`."""
    ranges = [{"containerID": first, "hostID": host, "size": size}]
    return {"uidMappings": ranges, "gidMappings": ranges}


@pytest.fixture
def files(bundle: Bundle) -> pathlib.Path:
    """A directory of the host with files of 0:0 and 5:6 in it."""
    directory = bundle.path / "files"
    directory.mkdir()
    for name, uid, gid in (("root", 0, 0), ("other", 5, 6)):
        (directory / name).touch()
        os.chown(directory / name, uid, gid)
    return directory


def bind(bundle: Bundle, source: pathlib.Path, destination: str, *options: str, **fields: object) -> None:
    bundle.config["mounts"].append(
        {"destination": destination, "source": str(source), "options": list(options), **fields}
    )


def test_idmap_means_the_containers_mapping(plain_runtime: Runtime, bundle: Bundle, files: pathlib.Path) -> None:
    """Without mappings of its own: what root owns on the host, root owns inside; new files are stored as root's."""
    user_namespace(bundle)
    bind(bundle, files, "/mnt", "bind", "idmap")
    bind(bundle, files, "/tmp", "bind")
    seen = observe(plain_runtime, bundle, mapped=f"{SHOW} /mnt/root /mnt/other", plain=f"{SHOW} /tmp/root",
                   made=f"touch /mnt/new; {SHOW} /mnt/new")  # fmt: skip
    assert seen["mapped"].split() == ["0:0", "5:6"]
    assert seen["plain"] == "65534:65534"
    assert seen["made"] == "0:0"
    assert ((files / "new").stat().st_uid, (files / "new").stat().st_gid) == (0, 0)


def test_mappings_of_its_own(plain_runtime: Runtime, bundle: Bundle, files: pathlib.Path) -> None:
    """They say which host id a stored id shows as; with and without a user namespace."""
    bind(bundle, files, "/mnt", "bind", "idmap", **mappings(0, 1000))
    seen = observe(plain_runtime, bundle, shown=f"{SHOW} /mnt/root /mnt/other")
    assert seen["shown"].split() == ["1000:1000", "1005:1006"]
    user_namespace(bundle)
    bundle.config["mounts"].pop()
    bind(bundle, files, "/mnt", "bind", **mappings(0, FIRST_ID + 7))
    assert observe(plain_runtime, bundle, shown=f"{SHOW} /mnt/root /mnt/other")["shown"].split() == ["7:7", "12:13"]


def test_mappings_of_its_own_in_a_system_container(runtime: Runtime, bundle: Bundle, files: pathlib.Path) -> None:
    """Without a user namespace in the spec they speak of ids inside, and what is changed there is stored as it was."""
    bind(bundle, files, "/mnt", "bind", **mappings(0, 1000, 100))
    seen = observe(runtime, bundle, shown=f"{SHOW} /mnt/root /mnt/other", made="chown 1007:1008 /mnt/other; echo $?")
    assert seen["shown"].split() == ["1000:1000", "1005:1006"]
    stored = (files / "other").stat()
    assert (seen["made"], stored.st_uid, stored.st_gid) == ("0", 7, 8)


def test_several_ranges(plain_runtime: Runtime, bundle: Bundle, files: pathlib.Path) -> None:
    """Ids outside of every range show as the overflow id."""
    ranges = [{"containerID": 0, "hostID": 100, "size": 1}, {"containerID": 5, "hostID": 300, "size": 1}]
    bind(bundle, files, "/mnt", "bind", "idmap", uidMappings=ranges, gidMappings=ranges)
    seen = observe(plain_runtime, bundle, shown=f"{SHOW} /mnt/root /mnt/other")
    assert seen["shown"].split() == ["100:100", "300:65534"]


def test_idmap_and_ridmap(
    plain_runtime: Runtime, bundle: Bundle, files: pathlib.Path, request: pytest.FixtureRequest
) -> None:
    """idmap concerns the one mount, ridmap those below it too."""
    below = files / "below"
    below.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(below)], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", str(below)], check=True))
    (below / "file").touch()
    bind(bundle, files, "/mnt", "rbind", "idmap", **mappings(0, 1000))
    bind(bundle, files, "/tmp", "rbind", "ridmap", **mappings(0, 1000))
    seen = observe(
        plain_runtime, bundle, one=f"{SHOW} /mnt/root /mnt/below/file", all=f"{SHOW} /tmp/root /tmp/below/file"
    )
    assert seen["one"].split() == ["1000:1000", "0:0"]
    assert seen["all"].split() == ["1000:1000", "1000:1000"]


def test_a_file_system_that_cannot(plain_runtime: Runtime, bundle: Bundle) -> None:
    """procfs has no ID-mapped mounts: the error says which mount and what to do."""
    bind(bundle, pathlib.Path("/proc/sys"), "/mnt", "bind", "idmap", **mappings(0, 1000))
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "id-map '/proc/sys'" in error and "does not support ID-mapped mounts" in error


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"options": ["bind", "idmap"]}, "both uid and gid mappings"),
        ({"type": "tmpfs", "options": ["idmap"], **mappings(0, 1)}, "only supported for bind-mounts"),
        ({"options": ["bind"], "uidMappings": mappings(0, 1)["uidMappings"]}, "both uid and gid mappings"),
    ],
)
def test_what_makes_no_sense(
    plain_runtime: Runtime, bundle: Bundle, files: pathlib.Path, fields: dict[str, object], words: str
) -> None:
    """Half a mapping, none without a user namespace, and mappings on what is no bind mount."""
    bundle.config["mounts"].append({"destination": "/mnt", "source": str(files), **fields})
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert words in error and "mounts[" in error
