"""Capabilities that must not be left behind, users that are not what they are called, ids that are the container's."""

import fcntl
import os
import pathlib
import signal
import stat
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime
from tests.support.weakened import Weaken

SETS = ("bounding", "effective", "permitted")
KILL = 1 << 5
PASSWD = """\
root:x:0:0::/:/bin/sh
0:x:1234:1234:named like root's id:/:/bin/sh
1000:x:0:0:a number for a name, and root:/:/bin/sh
wide:x:4294967296:4294967296:root in 32 bits:/:/bin/sh
minus:x:-1:-1::/:/bin/sh
last:x:4294967295:4294967295:means no change:/:/bin/sh
digit:x:\u00b2:\u0663::/:/bin/sh
::0:0:nobody at all:/:/bin/sh
fine:x:77:78::/:/bin/sh
"""


def capabilities(text: str) -> dict[str, int]:
    return {line[3:6]: int(line.split()[1], 16) for line in text.splitlines() if line.startswith("Cap")}


@pytest.fixture
def sleeper(plain_runtime: Runtime, bundle: Bundle) -> tuple[str, Bundle]:
    """A plain container with CAP_KILL alone, by name."""
    bundle.process["capabilities"] = {kind: ["CAP_KILL"] for kind in SETS}
    (bundle.rootfs / "etc").mkdir(exist_ok=True)
    (bundle.rootfs / "etc/passwd").write_text(PASSWD)
    (bundle.rootfs / "etc/group").write_text("wheel:x:4294967296:fine\nstaff:x:50:fine\nodd:x:\u00b2:fine\n")
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    return name, bundle


@pytest.mark.parametrize("user", ["0", "1000"])
def test_no_inheritable_or_ambient_capabilities(plain_runtime: Runtime, bundle: Bundle, user: str) -> None:
    """CVE-2022-29162, CVE-2022-24769, CVE-2022-27650: they are empty in run and in exec unless the spec has them.

    That exec --cap adds none either is what CVE-2025-27612 was about.
    """
    bundle.process["capabilities"] = {kind: ["CAP_KILL"] for kind in SETS}
    bundle.process["user"] = {"uid": int(user), "gid": int(user)}
    found = plain_runtime(
        "run", "--bundle", bundle.run("/bin/cat", "/proc/self/status").path, plain_runtime.id()
    ).stdout
    assert capabilities(found)["Inh"] == capabilities(found)["Amb"] == 0
    assert capabilities(found)["Bnd"] == KILL
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    for extra in ((), ("--cap", "CAP_NET_RAW")):
        found = plain_runtime("exec", *extra, name, "/bin/cat", "/proc/self/status").stdout
        assert capabilities(found)["Inh"] == capabilities(found)["Amb"] == 0, extra


def test_none_in_a_system_container(runtime: Runtime, bundle: Bundle) -> None:
    """Nor in a system container, whose root has everything else."""
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    for user in ("0", "1000"):
        found = capabilities(runtime("exec", "--user", user, name, "/bin/cat", "/proc/self/status").stdout)
        assert found["Inh"] == found["Amb"] == 0
        assert bool(found["Eff"]) == (user == "0")


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("0", (0, 0)),
        ("1000", (1000, 0)),
        ("fine", (77, 78)),
        ("fine:staff", (77, 50)),
        ("4294967294:5", (2**32 - 2, 5)),
    ],
)
def test_users_that_are_what_they_say(
    plain_runtime: Runtime, sleeper: tuple[str, Bundle], user: str, expected: tuple[int, int]
) -> None:
    """CVE-2016-3697: a number is an id, even where a user of that name has another."""
    ids = plain_runtime("exec", "--user", user, sleeper[0], "/bin/sh", "-c", "id -u; id -g").stdout.split()
    assert tuple(map(int, ids)) == expected


@pytest.mark.parametrize(
    "user",
    ["wide", "minus", "last", "digit", ":0", "-1", "+0", " 0", "0 ", "0x0", "0:", "0:-1", "0:0:0", "4294967295",
     "4294967296", "18446744073709551616", "\u0660", "fine:wheel", "fine:odd", "nobody-here", "1e3", "0.0"],
)  # fmt: skip
def test_users_that_are_not(plain_runtime: Runtime, sleeper: tuple[str, Bundle], user: str) -> None:
    """CVE-2026-30892: what is no id, or one too large for 32 bits, is an error, and nothing runs."""
    result = plain_runtime.fails("exec", "--user", user, sleeper[0], "/usr/bin/id")
    assert result.stdout == "" and "internal error" not in result.stderr


def test_a_wide_id_is_root_without_the_check(
    plain_runtime: Runtime, sleeper: tuple[str, Bundle], weaken: Weaken
) -> None:
    """What the kernel makes of 4294967296 if it gets it."""
    weak = weaken(plain_runtime, "child/users.py", "len(text) <= len(str(ID_MAX)) and int(text) <= ID_MAX", "True")
    assert weak("exec", "--user", "wide", sleeper[0], "/usr/bin/id", "-u").stdout.strip() == "0"


def test_ids_outside_the_mapping(runtime: Runtime, bundle: Bundle) -> None:
    """In a system container an id that is not mapped is refused by run and exec."""
    bundle.process["user"] = {"uid": 70000, "gid": 0}
    runtime.fails("run", "--bundle", bundle.save().path, runtime.id())
    bundle.process["user"] = {"uid": 0, "gid": 0}
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    for user in ("70000", "0:70000"):
        assert runtime.fails("exec", "--user", user, name, "/usr/bin/id").stdout == ""


@pytest.mark.parametrize("what", ["fifo", "zeros", "device", "directory", "loop", "lines", "lease"])
def test_a_passwd_that_is_no_file(
    plain_runtime: Runtime, sleeper: tuple[str, Bundle], what: str, request: pytest.FixtureRequest
) -> None:
    """A fifo, a gigabyte, a device, a directory: exec neither hangs nor opens it, and runs without a HOME from it.

    Nor does it wait for who has a lease on the file, which is 45 seconds (fcntl(2), F_SETLEASE).
    """
    name, bundle = sleeper
    passwd = bundle.rootfs / "etc/passwd"
    passwd.unlink()
    if what == "fifo":
        os.mkfifo(passwd)
    elif what == "zeros":
        with open(passwd, "wb") as file:
            file.truncate(1 << 30)
    elif what == "device":
        os.mknod(passwd, stat.S_IFCHR | 0o666, os.makedev(1, 5))
    elif what == "directory":
        passwd.mkdir()
    elif what == "loop":
        passwd.symlink_to("passwd")
    elif what == "lease":
        held = os.open(passwd, os.O_RDWR | os.O_CREAT, 0o644)
        request.addfinalizer(lambda: os.close(held))
        fcntl.fcntl(held, fcntl.F_SETSIG, signal.SIGURG)  # not SIGIO, which would end us
        fcntl.fcntl(held, fcntl.F_SETLEASE, fcntl.F_WRLCK)
    else:
        passwd.write_text(":" * 100_000 + "\n" * 100_000)
    result = plain_runtime("exec", "--user", "33", name, "/bin/sh", "-c", "echo $HOME", timeout=10)
    assert result.stdout.strip() == "/"
    plain_runtime.fails("exec", "--user", "fine", name, "/bin/true", timeout=10)


def test_root_of_a_container_is_nobody_of_the_host(runtime: Runtime, bundle: Bundle) -> None:
    """Its processes have ids that nobody else has, also when they execute a set-id file that it made.

    On disk an ID-mapped root file system holds the container's own ids, 0 for its root: whoever of the host may reach
    it finds such a file there (SECURITY.md, "Left to you"), and no other container does.
    """
    bundle.sh("cp /bin/busybox /busybox-suid && chmod 4755 /busybox-suid && exec /busybox-suid sleep 100")
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.path, name)
    pid = runtime.state(name)["pid"]
    first = int(pathlib.Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    assert first >= 65536
    ids = {
        int(word)
        for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        if line.startswith(("Uid:", "Gid:"))
        for word in line.split()[1:]
    }
    assert ids == {first}


def test_no_ids_are_shared(runtime: Runtime, new_bundle: Callable[..., Bundle]) -> None:
    """Two system containers have no host id in common."""
    starts = []
    for _ in range(3):
        name = runtime.id()
        runtime("run", "--detach", "--bundle", new_bundle("/bin/sleep", "100").path, name)
        words = pathlib.Path(f"/proc/{runtime.state(name)['pid']}/uid_map").read_text().split()
        assert words[0] == "0" and words[2] == "65536"
        starts.append(int(words[1]))
    assert all(abs(a - b) >= 65536 for i, a in enumerate(starts) for b in starts[:i])


def test_devices_made_inside_are_none(runtime: Runtime, bundle: Bundle) -> None:
    """Root of a system container can neither make a node of the host's disk nor use one that the rootfs brings."""
    disk = os.stat("/").st_dev
    os.mknod(bundle.rootfs / "disk", stat.S_IFBLK | 0o666, disk)
    (bundle.rootfs / "disk").chmod(0o666)
    bundle.sh(
        f"mknod /made b {os.major(disk)} {os.minor(disk)}; head -c 1 /disk /made; "
        "mount -o remount,dev / ; head -c 1 /disk; mount -t ext4 /disk /mnt; true"
    )
    result = runtime("run", "--bundle", bundle.path, runtime.id())
    assert result.stdout.replace("==> /disk <==", "").strip() == ""
    assert not (bundle.rootfs / "made").exists()
