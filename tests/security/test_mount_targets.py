"""What a rootfs, or a process racing in it, does to mount points stays inside the root file system.

CVE-2021-30465, CVE-2019-19921, CVE-2023-27561, CVE-2024-45310, CVE-2026-41579.
"""

import os
import pathlib
import subprocess
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import SOURCE, Runtime
from tests.support.weakened import Weaken

ROUNDS = 10_000

# Resolves and makes a mount point while another process swaps it with a link that leads out. Prints the escapes.
RACE = """
import os, sys
sys.path.append({library!r})
from sysvisor_runc.child import paths
root, outside, swapper = {root!r}, {outside!r}, {swapper!r}
fd = os.open(root, os.O_PATH)
pid = os.fork()
if pid == 0:
    os.execv(swapper, [swapper, "swap", root + "/shared/real", root + "/shared/link", str(10 ** 9)])
escapes = 0
for round in range({rounds}):
    try:
        make = paths.make_directory if round & 1 else paths.make_file
        found = make(fd, "/shared/real/place" + str(round % 7) + ("d" if round & 1 else "f"))
    except OSError:
        continue
    escapes += not os.readlink("/proc/self/fd/" + str(found)).startswith(root + "/")
    os.close(found)
os.kill(pid, 9)
os.waitpid(pid, 0)
print(escapes, len(os.listdir(outside)))
"""


@pytest.fixture
def outside(workplace: pathlib.Path) -> pathlib.Path:
    """A directory of the host that must stay empty."""
    path = workplace / "outside"
    path.mkdir()
    return path


def race(root: pathlib.Path, outside: pathlib.Path, swapper: pathlib.Path, library: pathlib.Path) -> list[int]:
    """How often the swapper has led `library` out of the root, and to make something there."""
    if not (root / "shared").exists():
        (root / "shared/real").mkdir(parents=True)
        (root / "shared/link").symlink_to(outside)
    script = RACE.format(
        library=str(library), root=str(root), outside=str(outside), swapper=str(swapper), rounds=ROUNDS
    )
    done = subprocess.run(["/usr/bin/python3", "-SI", "-c", script], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_ten_thousand_swaps(workplace: pathlib.Path, outside: pathlib.Path, attacker_program: pathlib.Path) -> None:
    """A mount point swapped with a link to the host, as fast as it goes, is never followed nor made there."""
    root = workplace / "root"
    root.mkdir()
    assert race(root, outside, attacker_program, SOURCE) == [0, 0]


def test_ten_thousand_swaps_of_joined_strings(
    workplace: pathlib.Path, outside: pathlib.Path, attacker_program: pathlib.Path, runtime: Runtime, weaken: Weaken
) -> None:
    """The same without RESOLVE_IN_ROOT escapes, be it not at once."""
    weak = weaken(
        runtime,
        "child/paths.py",
        "_IN_ROOT = RESOLVE_IN_ROOT | ",
        "_IN_ROOT = ",
        "return openat2(root, path, flags, resolve=_IN_ROOT)",
        'return openat2(root, path.lstrip("/") or ".", flags, resolve=_IN_ROOT)',
    )
    root = workplace / "root"
    root.mkdir()
    assert any(all(race(root, outside, attacker_program, weak.program.parents[1])) for _ in range(20))


def test_containers_made_during_swaps(
    plain_runtime: Runtime, hostile: Callable[..., Bundle], outside: pathlib.Path, attacker_program: pathlib.Path
) -> None:
    """Whole launches with a bind, a tmpfs and a device below a directory that is being swapped."""
    bundle = hostile("/bin/true")
    shared = bundle.rootfs / "shared"
    (shared / "real").mkdir(parents=True)
    (shared / "link").symlink_to(outside)
    bundle.config["mounts"] += [
        {"destination": "/shared/real/bind", "type": "bind", "source": "/etc/hostname", "options": ["bind"]},
        {"destination": "/shared/real/tmp", "type": "tmpfs", "source": "tmpfs"},
    ]
    device = {"path": "/shared/real/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666}
    bundle.linux["devices"] = [device]
    bundle.save()
    args = [str(attacker_program), "swap", str(shared / "real"), str(shared / "link"), "1000000000"]
    swapper = subprocess.Popen(args)
    try:
        for _ in range(15):
            plain_runtime("run", "--bundle", bundle.path, plain_runtime.id(), check=False)
    finally:
        swapper.kill()
        swapper.wait()
    assert os.listdir(outside) == []


@pytest.mark.parametrize("destination", ["/proc", "/sys"])
@pytest.mark.parametrize("target", ["../outside", "/elsewhere", "."])
def test_procfs_and_sysfs_want_ordinary_directories(
    plain_runtime: Runtime, bundle: Bundle, outside: pathlib.Path, destination: str, target: str
) -> None:
    """/proc or /sys as a symbolic link is refused, wherever it leads."""
    place = bundle.rootfs / destination[1:]
    if place.is_dir():
        place.rmdir()
    place.symlink_to(target)
    (bundle.rootfs / "elsewhere").mkdir()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "must be mounted on ordinary directory" in error
    assert os.listdir(outside) == []


@pytest.mark.parametrize("name", ["dev", "dev/pts", "dev/null", "dev/console", "run", "etc", "vol"])
@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_links_in_the_rootfs_lead_nowhere(
    request: pytest.FixtureRequest, bundle: Bundle, outside: pathlib.Path, name: str, kind: str
) -> None:
    """Links in the place of what is mounted, made or written lead to the inside or to an error, never to the host."""
    runtime: Runtime = request.getfixturevalue(kind)
    place = bundle.rootfs / name
    place.parent.mkdir(exist_ok=True)
    if place.is_dir():
        place.rename(bundle.rootfs / "was")
    place.unlink(missing_ok=True)
    place.symlink_to(outside)
    # Without a tmpfs over /dev what is in the rootfs counts.
    mounts = bundle.config["mounts"]
    bundle.config["mounts"] = [m for m in mounts if not m["destination"].startswith("/dev")]
    bundle.config["mounts"].append(
        {"destination": "/vol/file", "type": "bind", "source": "/etc/hostname", "options": ["bind"]}
    )
    bundle.save()
    runtime("run", "--bundle", bundle.path, runtime.id(), check=False)
    assert os.listdir(outside) == []


@pytest.mark.parametrize("path", ["/proc", "/proc/self", "/proc/1/attr", "/proc/sysrq-trigger"])
def test_nothing_but_procfs_is_mounted_on_proc(
    plain_runtime: Runtime, bundle: Bundle, outside: pathlib.Path, path: str
) -> None:
    """CVE-2019-16884: neither a tmpfs nor a directory of the container's choosing stands in for procfs."""
    for mount in ({"type": "tmpfs", "source": "tmpfs"}, {"type": "bind", "source": str(outside), "options": ["rbind"]}):
        bundle.config["mounts"] = [*bundle.config["mounts"][:7], {"destination": path, **mount}]
        bundle.save()
        assert "cannot be mounted" in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr


def linked(bundle: Bundle, target: str, mount: dict[str, str]) -> Bundle:
    """A bundle whose volume at /link goes where a link of the root file system leads."""
    (bundle.rootfs / "link").symlink_to(target)
    bundle.config["mounts"].append({"destination": "/link", **mount})
    return bundle.sh("cut -d' ' -f5 /proc/self/mountinfo")


@pytest.mark.parametrize("target", ["/proc", "/proc/sys", "../../proc/self/attr"])
@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_no_link_leads_onto_proc(request: pytest.FixtureRequest, bundle: Bundle, target: str, kind: str) -> None:
    """CVE-2025-52881: nor by an image's link in the place of a volume, which config.json cannot show."""
    runtime: Runtime = request.getfixturevalue(kind)
    linked(bundle, target, {"type": "tmpfs", "source": "tmpfs"})
    assert "inside /proc" in runtime.fails("run", "--bundle", bundle.path, runtime.id()).stderr


def test_unlooked_at_a_link_leads_onto_proc(
    plain_runtime: Runtime, bundle: Bundle, outside: pathlib.Path, weaken: Weaken
) -> None:
    """The same on a copy that goes by the name, with a bind: what the container reads and writes there is its own."""
    check = "if os.fstat(proc).st_dev == os.fstat(destination).st_dev:"
    weak = weaken(plain_runtime, "child/mounts.py", check, "if not proc:")
    linked(bundle, "/proc/self/attr", {"type": "bind", "source": str(outside)})
    bundle.config["mounts"][-1]["options"] = ["rbind"]
    assert "/proc/1/attr" in weak("run", "--bundle", bundle.save().path, weak.id()).stdout
    assert "inside /proc" in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
