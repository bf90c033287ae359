"""Init detection, what systemd gets, and the container interface."""

import uuid

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.types import Spec
from sysvisor_runc.syscont.convert import convert
from sysvisor_runc.syscont.init import init_kind
from sysvisor_runc.syscont.interface import container_uuid
from sysvisor_runc.syscont.traits import Traits
from tests.unit.syscont import sample

SYSTEMD = "/usr/lib/systemd/systemd"
OS_RELEASE = 'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="12"\n# ID=no\nVARIANT_ID=\'server\'\n'


def booted(
    *args: str, resolved: str | None = None, given: dict[str, object] | None = None, **facts: object
) -> tuple[Spec, Traits]:
    return convert(sample.spec(*args, **given or {}), sample.facts(args0=resolved, **facts))


@pytest.mark.parametrize(
    ("arg0", "resolved", "kind"),
    [
        ("/sbin/init", "/lib/systemd/systemd", "systemd"),
        ("/sbin/init", "/usr/lib/systemd/systemd", "systemd"),
        ("/lib/systemd/systemd", "/usr/lib/systemd/systemd", "systemd"),
        ("/usr/lib/systemd/systemd", None, "systemd"),
        ("/start", "/nix/store/abc-systemd-255/lib/systemd/systemd", "systemd"),
        ("/usr/sbin/init", "/usr/sbin/init", "init"),
        ("/sbin/init", "/bin/busybox", "init"),
        ("/sbin/init", None, "init"),
        ("/sbin/openrc-init", "/sbin/openrc-init", "init"),
        ("/sbin/init", "/sbin/openrc-init", "init"),
        ("/init", "/init", "init"),
        ("/bin/s6-svscan", None, "init"),
        ("sh", "/bin/busybox", "program"),
        ("/sbin/docker-init", "/sbin/docker-init", "program"),
        ("/lib/systemd/systemd-journald", None, "program"),
        ("bash", None, "program"),
    ],
)
def test_kind(arg0: str, resolved: str | None, kind: str) -> None:
    """What args[0] really is decides, and for a multi-call binary its name."""
    assert init_kind(arg0, resolved) == kind


@pytest.mark.parametrize(
    ("resolved", "signal"), [("/lib/systemd/systemd", 37), ("/bin/busybox", 12), ("/sbin/init", None)]
)
def test_stop_signal(resolved: str, signal: int | None) -> None:
    """Each init is asked to shut down in its own language."""
    assert booted("/sbin/init", resolved=resolved)[1].stop_signal == signal


def test_systemd_file_systems() -> None:
    """/run, /run/lock and /tmp are fresh, /sys is read-only so that udevd stays off, the cgroup mount is writable."""
    found = sample.by_destination(booted("/sbin/init", resolved=SYSTEMD)[0])
    assert [found[place]["type"] for place in ("/run", "/run/lock", "/tmp")] == ["tmpfs"] * 3
    assert "ro" in found["/sys"]["options"]
    assert "ro" not in found["/sys/fs/cgroup"]["options"]
    assert "ro" not in found["/proc"]["options"]


def test_masked_units() -> None:
    """Units that could only fail in a user namespace are masked in our /run, never in a directory of the user's."""
    _, traits = booted("/sbin/init", resolved=SYSTEMD)
    assert traits.links["/run/systemd/system/sys-kernel-debug.mount"] == "/dev/null"
    assert booted("/sbin/init", resolved=SYSTEMD, given={"mounts": [sample.tmpfs("/run")]})[1].links
    assert not booted("/sbin/init", resolved=SYSTEMD, given={"mounts": [sample.bind("/x", "/run")]})[1].links
    assert not booted("sh")[1].links


def test_only_systemd_gets_them() -> None:
    """A shell keeps the /run and /tmp of its rootfs and a writable /sys."""
    found = sample.by_destination(booted("sh")[0])
    assert not {"/run", "/run/lock", "/tmp"} & found.keys()
    assert "ro" not in found["/sys"]["options"]


def test_a_users_volumes_stay() -> None:
    """A volume at /run or /tmp is the user's word; nothing is mounted over it."""
    mounts = [sample.bind("/x", "/run"), sample.tmpfs("/tmp", "size=1g")]
    converted, _ = booted("/sbin/init", resolved=SYSTEMD, given={"mounts": mounts})
    assert all(mount in converted["mounts"] for mount in mounts)
    assert "/run/lock" not in sample.places(converted)


def test_systemd_paths_are_not_masked() -> None:
    """Masks over what systemd must write are dropped for it, and for it alone."""
    linux = {"maskedPaths": ["/sys/kernel", "/sys/firmware"], "readonlyPaths": ["/run/lock/", "/proc/bus"]}
    with_systemd, traits = booted("/sbin/init", resolved=SYSTEMD, given={"linux": linux})
    assert with_systemd["linux"]["maskedPaths"] == ["/sys/firmware"]
    assert traits.readonly_paths == ("/proc/bus",)
    assert "/sys/kernel" in booted("sh", given={"linux": linux})[0]["linux"]["maskedPaths"]


def test_every_program_knows_that_it_is_in_a_container() -> None:
    """`container` is set, an empty one replaced, one from a manager above us kept."""
    assert sample.env(booted("sh")[0])["container"] == "sysvisor-runc"
    assert sample.env(booted("sh", given={"process": {"env": ["container="]}})[0])["container"] == "sysvisor-runc"
    podman, traits = booted("/sbin/init", given={"process": {"env": ["container=podman"]}})
    assert sample.env(podman)["container"] == "podman"
    assert traits.run_host_files["/run/host/container-manager"] == "podman\n"


def test_interface_of_an_init() -> None:
    """Any init finds its uuid, the host's identity and /run/host."""
    known = {"container_uuid": "u-u-i-d", "os_release": OS_RELEASE}
    converted, traits = booted("/sbin/init", resolved="/sbin/init", given={"process": {"terminal": True}}, **known)
    variables = sample.env(converted)
    assert variables["container_uuid"] == "u-u-i-d"
    assert variables["container_host_id"] == "debian"
    assert variables["container_host_version_id"] == "12"
    assert variables["container_host_variant_id"] == "server"
    assert variables["TERM"] == "xterm"
    assert traits.run_host_files == {
        "/run/host/container-manager": "sysvisor-runc\n",
        "/run/host/container-uuid": "u-u-i-d\n",
        "/run/host/os-release": OS_RELEASE,
    }
    assert traits.run_host_nodes["/run/host/inaccessible/chr"] == "chr"
    assert "/run/host" in converted["linux"]["readonlyPaths"]
    assert "/run/host" not in traits.readonly_paths


def test_given_variables_win() -> None:
    """A uuid and a terminal type of the user's own are kept."""
    env = ["container_uuid=mine", "TERM=vt100"]
    converted, traits = booted("/sbin/init", given={"process": {"env": env, "terminal": True}}, container_uuid="ours")
    assert (sample.env(converted)["container_uuid"], sample.env(converted)["TERM"]) == ("mine", "vt100")
    assert traits.run_host_files["/run/host/container-uuid"] == "mine\n"


def test_a_program_has_no_run_host() -> None:
    """Nothing is added to the image of a program that would not look."""
    converted, traits = booted("sh", container_uuid="x", os_release=OS_RELEASE)
    assert "/run/host" not in sample.places(converted)
    assert traits.run_host_files == {}


def test_a_managers_own_run_host() -> None:
    """A /run/host that the spec mounts is not filled by us."""
    converted, traits = booted("/sbin/init", given={"mounts": [sample.bind("/x", "/run/host")]})
    assert sample.places(converted).count("/run/host") == 1
    assert traits.run_host_files == {}


def test_credentials() -> None:
    """They come in memory that is never swapped, in order, read-only, and any program is told where."""
    converted, traits = booted("sh", credentials={"passwd": b"\0x"})
    place = "/run/host/credentials"
    assert sample.env(converted)["CREDENTIALS_DIRECTORY"] == place
    assert sample.by_destination(converted)[place]["type"] == "ramfs"
    places = sample.places(converted)
    assert places.index("/run/host") < places.index(place)
    assert converted["linux"]["readonlyPaths"] == [place, "/run/host"]
    assert (traits.credentials, traits.credentials_dir) == ({"passwd": b"\0x"}, place)


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb", "x" * 256])
def test_bad_credential_names(name: str) -> None:
    """A name that could leave the directory is refused."""
    with pytest.raises(SpecError, match="credential"):
        booted("sh", credentials={name: b""})


def test_too_much_credential() -> None:
    """systemd takes a mebibyte; more is refused before anything is made."""
    with pytest.raises(SpecError, match="1048577 bytes"):
        booted("sh", credentials={"a": b"x" * (1 << 20), "b": b"y"})


def test_uuid() -> None:
    """It is stable, valid, and differs by container and by machine."""
    first = container_uuid("web", "a" * 32 + "\n")
    assert first == container_uuid("web", "a" * 32)
    assert uuid.UUID(first).version == 4
    assert len({first, container_uuid("db", "a" * 32), container_uuid("web", "b" * 32), container_uuid("web", "")}) == 4
