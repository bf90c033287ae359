"""Which bind mounts are ID-mapped."""

import pytest

from sysvisor_runc.spec.types import Mount
from sysvisor_runc.syscont.binds import convert_binds
from sysvisor_runc.syscont.facts import PathFacts
from sysvisor_runc.syscont.traits import Traits
from tests.unit.syscont import sample


def converted(mount: Mount, source: PathFacts, traits: Traits | None = None, **facts: object) -> list[str]:
    known = sample.facts(sources={mount["source"]: source}, **facts)
    result = convert_binds(sample.spec(mounts=[mount]), known, traits or sample.traits())
    return result["mounts"][0]["options"]


def test_volume() -> None:
    """A recursive bind is mapped with its submounts, a plain one alone."""
    assert converted(sample.bind("/srv", "/srv"), PathFacts(sample.EXT4)) == ["rbind", "ridmap"]
    plain: Mount = {"destination": "/srv", "type": "none", "source": "/srv", "options": ["bind"]}
    assert converted(plain, PathFacts(sample.EXT4)) == ["bind", "idmap"]


def test_a_submount_that_refuses_does_not_spoil_the_rest() -> None:
    """With FUSE below the source only the top mount is mapped, since the kernel maps all or nothing."""
    source = PathFacts(sample.EXT4, submounts=(sample.XFS, sample.FUSE))
    assert converted(sample.bind("/srv", "/srv"), source) == ["rbind", "idmap"]


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_the_specs_own_wish_stays(option: str) -> None:
    """A mount that asks for a mapping itself is not asked again."""
    assert converted(sample.bind("/srv", "/srv", option), PathFacts(sample.EXT4)) == ["rbind", option]


def test_the_specs_own_mapping_stays() -> None:
    """Nor is one that brings its own."""
    mount = sample.bind("/srv", "/srv")
    mount["uidMappings"] = mount["gidMappings"] = [{"containerID": 0, "hostID": 5, "size": 1}]
    for known in (None, sample.RANGE):
        assert converted(mount, PathFacts(sample.EXT4), id_range=known) == ["rbind"]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/dev/null", PathFacts(sample.TMPFS, device=True)),
        ("/dev/net", PathFacts(sample.TMPFS)),
        ("/srv", PathFacts(sample.EXT4, 231072 + 1000, 231072 + 1000)),
        ("/var/lib/sysvisorfs/web/proc/uptime", PathFacts(sample.EXT4)),
    ],
)
def test_left_alone_silently(path: str, source: PathFacts) -> None:
    """Devices, sources whose owner fits and the daemon's files need nothing."""
    traits = sample.traits()
    known = {"fs_mountpoint": "/var/lib/sysvisorfs"}
    assert converted(sample.bind(path, "/x"), source, traits, **known) == ["rbind"]
    assert traits.warnings == []


def test_shared_memory_of_a_pod() -> None:
    """A directory below /dev/shm is an ordinary tmpfs, unlike the rest of /dev."""
    assert "ridmap" in converted(sample.bind("/dev/shm/pod", "/dev/shm"), PathFacts(sample.TMPFS))


@pytest.mark.parametrize("magic", [sample.OVERLAY, sample.FUSE, 0x1234])
def test_impossible(magic: int) -> None:
    """What cannot be mapped stays as it is, and the log says whose the files will seem to be."""
    traits = sample.traits()
    assert converted(sample.bind("/srv", "/data"), PathFacts(magic), traits) == ["rbind"]
    assert traits.warnings[0].startswith("/data: files will belong to nobody inside: ")


def test_skipped_on_request() -> None:
    """A destination listed in SYSVISOR_SKIP_UID_SHIFT is not mapped."""
    traits = sample.traits()
    traits.settings.skip_uid_shift = frozenset(("/data",))
    assert converted(sample.bind("/srv", "/data/"), PathFacts(sample.EXT4), traits) == ["rbind"]


def test_nothing_known() -> None:
    """A source that nobody looked at is left to the kernel."""
    mount = sample.bind("/srv", "/srv")
    assert convert_binds(sample.spec(mounts=[mount]), sample.facts(), sample.traits())["mounts"] == [mount]
    joined = sample.traits(ids=None)
    assert convert_binds(sample.spec(mounts=[mount]), sample.facts(), joined)["mounts"] == [mount]
