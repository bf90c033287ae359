"""The base mounts, what they replace, and the order of all mounts."""

import random

import pytest

from sysvisor_runc.spec.types import Mount, Spec
from sysvisor_runc.syscont.mounts import convert_mounts, sort_mounts
from sysvisor_runc.syscont.readonly import convert_readonly
from tests.unit.syscont import sample

RELEASE = "6.1.0-13-amd64"


def based(*mounts: Mount, **facts: object) -> Spec:
    return convert_mounts(sample.spec(mounts=list(mounts)), sample.facts(**facts), sample.traits())


def ordered(*mounts: Mount, **facts: object) -> list[str]:
    return sample.places(sort_mounts(sample.spec(mounts=list(mounts)), sample.facts(**facts), sample.traits()))


def plain(destination: str) -> Mount:
    return {"destination": destination, "type": destination[1:], "source": "x", "options": ["ro"]}


def test_a_bare_spec_gets_a_whole_system() -> None:
    """Kernel file systems, a /dev and a private kmsg are there without being asked for."""
    found = sample.by_destination(based())
    assert [found[place]["type"] for place in ("/proc", "/sys", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")] == [
        "proc", "sysfs", "tmpfs", "devpts", "tmpfs", "mqueue",
    ]  # fmt: skip
    assert found["/dev/kmsg"]["source"] == "/dev/null"
    assert "ro" not in found["/sys/fs/cgroup"]["options"]


def test_the_specs_kernel_file_systems_are_replaced() -> None:
    """Read-only /sys and cgroup mounts of application containers give way, once each."""
    converted = based(plain("/sys"), plain("/sys/fs/cgroup/"), plain("/sys/fs/cgroup/memory"), plain("/proc"))
    places = sample.places(converted)
    assert len(places) == len(set(places))
    assert not any("ro" in mount["options"] for mount in converted["mounts"])


def test_data_options_survive_replacement() -> None:
    """The spec's size of /dev and hidepid of /proc stay, its flags do not."""
    proc: Mount = {"destination": "/proc", "type": "proc", "source": "proc", "options": ["ro", "hidepid=2"]}
    found = sample.by_destination(based(sample.tmpfs("/dev", "size=1m", "noatime"), proc))
    assert found["/dev"]["options"] == ["nosuid", "strictatime", "mode=755", "size=1m"]
    assert found["/proc"]["options"] == ["nosuid", "noexec", "nodev", "hidepid=2"]


def test_the_specs_other_mounts_win() -> None:
    """A shm of the user's own size is not replaced, and mounts below /proc and /sys are kept."""
    own = [sample.tmpfs("/dev/shm", "size=1g"), sample.bind("/x", "/proc/sys/kernel"), sample.tmpfs("/sys/firmware")]
    converted = based(*own)
    assert all(mount in converted["mounts"] for mount in own)
    assert sample.places(converted).count("/dev/shm") == 1


def test_a_replaced_bind_is_reported() -> None:
    """The host's /dev cannot be a system container's, and the log says so."""
    traits = sample.traits()
    convert_mounts(sample.spec(mounts=[sample.bind("/dev", "/dev")]), sample.facts(), traits)
    assert traits.warnings == ["/dev: the spec's bind mount gives way to the system container's own"]


def test_replaced_devices() -> None:
    """A device at the place of a base mount is not made."""
    devices = [{"type": "c", "path": path, "major": 1, "minor": 11} for path in ("/dev/kmsg", "/dev/fuse")]
    converted = convert_mounts(sample.spec(linux={"devices": devices}), sample.facts(), sample.traits())
    assert [device["path"] for device in converted["linux"]["devices"]] == ["/dev/fuse"]


def test_no_cgroups_on_the_host() -> None:
    """Without any cgroup file system there is no mount and no delegation, but a warning."""
    traits = sample.traits()
    converted = convert_mounts(sample.spec(), sample.facts(cgroup="none"), traits)
    assert "/sys/fs/cgroup" not in sample.places(converted)
    assert not traits.delegate_cgroup
    assert len(traits.warnings) == 1


MODULES, HEADERS = f"/lib/modules/{RELEASE}", f"/usr/src/linux-headers-{RELEASE}"


def test_modules_and_headers() -> None:
    """The host's are shown read-only where the rootfs has a place for them."""
    found = sample.by_destination(based(host_paths=frozenset((MODULES, HEADERS))))
    assert {"ro", "rbind"} <= set(found[MODULES]["options"])
    assert found[HEADERS]["source"] == HEADERS
    only = sample.places(based(host_paths=frozenset((MODULES, HEADERS)), rootfs_dirs=frozenset(("/lib",))))
    assert MODULES in only
    assert HEADERS not in only


@pytest.mark.parametrize("destination", [MODULES, "/lib/modules", "/lib/modules/"])
def test_the_specs_modules_win(destination: str) -> None:
    """Modules that the spec brings, or a directory above them, are not mounted over."""
    mounts = based(sample.bind("/m", destination), host_paths=frozenset((MODULES,)))["mounts"]
    assert not any(mount["source"] == MODULES for mount in mounts)


def test_binfmt_misc() -> None:
    """It is mounted where each user namespace has its own."""
    known = frozenset(("binfmt_misc",))
    assert "/proc/sys/fs/binfmt_misc" in sample.places(based(filesystems=known))
    assert "/proc/sys/fs/binfmt_misc" not in sample.places(based(filesystems=known, kernel=(6, 6)))
    assert "/proc/sys/fs/binfmt_misc" not in sample.places(based())


def test_order() -> None:
    """Kernel file systems first, then the rest as given, binds last."""
    given = [sample.bind("/a", "/srv"), sample.tmpfs("/tmp"), plain("/dev"), sample.tmpfs("/run"), plain("/proc")]
    assert ordered(*given, plain("/sys")) == ["/proc", "/dev", "/sys", "/run", "/tmp", "/srv"]


def test_nothing_is_hidden_by_what_it_lies_in() -> None:
    """A tmpfs within a bind waits for the bind, and a bind for what it lies in."""
    given = [sample.bind("/c", "/data/a/b"), sample.tmpfs("/data/a"), sample.bind("/x", "/data")]
    assert ordered(*given) == ["/data", "/data/a", "/data/a/b"]


def test_symlinks_are_followed() -> None:
    """Docker's /var/run/secrets is in /run: a tmpfs there comes first."""
    given = [sample.bind("/x", "/var/run/secrets"), sample.tmpfs("/run/secrets")]
    links = {"/var/run/secrets": "/run/secrets/deep"}
    assert ordered(*given, destinations=links) == ["/run/secrets", "/var/run/secrets"]


def test_the_later_of_two_at_one_place_stays_on_top() -> None:
    """Mounts at the same destination keep their order, whatever their kind."""
    given = [sample.bind("/x", "/a"), sample.tmpfs("/a/")]
    assert ordered(*given) == ["/a", "/a/"]


def test_a_second_one_on_top_comes_in_its_turn() -> None:
    """What was mounted below a place before it was mounted upon again is not on top of that."""
    stack = [sample.bind("/x", "/a"), sample.bind("/y", "/a/b"), sample.bind("/z", "/a/")]
    assert ordered(*stack) == ["/a", "/a/b", "/a/"]
    assert ordered(sample.tmpfs("/a/b"), *stack[::2]) == ["/a", "/a/", "/a/b"]


def test_order_holds_for_any_set_of_mounts() -> None:
    """No mount ever comes before one that it lies below, and none is lost."""
    chance = random.Random(7)
    names = ["a", "b", "dev", "run", "sys"]
    for _ in range(200):
        paths = {"/" + "/".join(chance.choices(names, k=chance.randint(1, 4))) for _ in range(12)}
        given = [chance.choice((sample.tmpfs(path), sample.bind("/x", path))) for path in sorted(paths)]
        chance.shuffle(given)
        result = ordered(*given)
        assert sorted(result) == sorted(paths)
        for index, place in enumerate(result):
            assert not any(place.startswith(later + "/") for later in result[index:])


def test_many_mounts_are_sorted_in_time() -> None:
    """A hostile spec with a hundred thousand mounts is no attack on the sort."""
    given = [sample.tmpfs(f"/m/{index}") for index in range(100_000)]
    assert len(ordered(*given)) == 100_000


def test_readonly_root() -> None:
    """/run and /tmp are writable, /sys is not, and the cgroup mount still is."""
    given = convert_mounts(sample.spec(root={"path": "rootfs", "readonly": True}), sample.facts(), sample.traits())
    found = sample.by_destination(convert_readonly(given, sample.facts(), sample.traits()))
    assert "mode=1777" in found["/tmp"]["options"]
    assert "mode=755" in found["/run"]["options"]
    assert "ro" in found["/sys"]["options"]
    assert "ro" not in found["/sys/fs/cgroup"]["options"]


def test_readonly_root_with_own_mounts() -> None:
    """A volume at /tmp stays the only mount there."""
    given = sample.spec(mounts=[sample.bind("/x", "/tmp")])
    assert sample.places(convert_readonly(given, sample.facts(), sample.traits())) == ["/tmp", "/run"]
