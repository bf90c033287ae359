"""A container cannot type into the caller's terminal (TIOCSTI), take it for its own, or find it at all."""

import os
import pathlib
import pty
import select
import subprocess
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime

Hostile = Callable[..., Bundle]


def in_a_terminal(command: list[str]) -> bytes:
    """Run a command as the leader of a session on a new terminal; what could be typed into that afterwards."""
    master, slave = pty.openpty()
    code = "import fcntl, os, sys, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"  # fmt: skip # noqa: E501
    argv = ["/usr/bin/python3", "-c", code, *command]
    process = subprocess.Popen(argv, stdin=slave, stdout=slave, stderr=slave)
    said = b""
    while process.poll() is None:
        if select.select([master], [], [], 0.05)[0]:
            said += os.read(master, 65536)
    os.set_blocking(slave, False)
    try:
        typed = os.read(slave, 4096)
    except BlockingIOError:
        typed = b""
    os.close(master)
    os.close(slave)
    return typed


def loot(bundle: Bundle) -> str:
    return (bundle.rootfs / "loot").read_text()


@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_nothing_is_typed_for_the_caller(request: pytest.FixtureRequest, hostile: Hostile, kind: str) -> None:
    """run and exec without a terminal of their own, called on a terminal: it is on stdin, but no longer controlling."""
    runtime: Runtime = request.getfixturevalue(kind)
    # CAP_SYS_ADMIN of the host may do it to any terminal.
    bundle = hostile("/attacker", "inject")
    bundle.process["capabilities"] = {kind: ["CAP_KILL"] for kind in ("bounding", "effective", "permitted")}
    assert in_a_terminal(runtime.argv("run", "--bundle", str(bundle.save().path), runtime.id())) == b""
    assert "controlling 1" not in loot(bundle) and "injected 1" not in loot(bundle) and "tty 1" not in loot(bundle)
    (bundle.rootfs / "loot").unlink()
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    assert in_a_terminal(runtime.argv("exec", name, "/attacker", "inject")) == b""
    assert "controlling 1" not in loot(bundle) and "injected 1" not in loot(bundle) and "tty 1" not in loot(bundle)


def test_the_callers_terminal_stays_outside(plain_runtime: Runtime, hostile: Hostile) -> None:
    """With a terminal of its own a container gets none of the caller's, and the caller's keeps its owner."""
    bundle = hostile("/bin/sh", "-c", "readlink /proc/self/fd/0 >/seen; stat -c %t:%T /dev/console >>/seen")
    bundle.process["terminal"] = True
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.rootfs.chmod(0o777)
    master, slave = pty.openpty()
    before = os.fstat(slave).st_uid
    argv = plain_runtime.argv("run", "--bundle", str(bundle.save().path), plain_runtime.id())
    subprocess.run(argv, stdin=slave, stdout=slave, stderr=slave, check=True, timeout=30)
    assert os.fstat(slave).st_uid == before
    assert (bundle.rootfs / "seen").read_text().splitlines()[0] in ("/dev/pts/0", "/dev/console")
    os.close(master)
    os.close(slave)


def test_files_given_to_read_keep_their_owner(plain_runtime: Runtime, bundle: Bundle, workplace: pathlib.Path) -> None:
    """stdio is handed to the container's user, but neither a file to read from nor a device of the host."""
    given = workplace / "given"
    given.write_text("for reading\n")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.run("/bin/cat")
    with open(given) as stdin:
        assert plain_runtime("run", "--bundle", bundle.path, plain_runtime.id(), stdin=stdin).stdout == "for reading\n"
    assert given.stat().st_uid == 0
    zero = os.stat("/dev/zero").st_uid
    bundle.run("/bin/true")
    with open("/dev/zero") as stdin:
        plain_runtime("run", "--bundle", bundle.path, plain_runtime.id(), stdin=stdin)
    assert os.stat("/dev/zero").st_uid == zero
