"""Ids, state roots, stored pids: what somebody puts there does not lead a command elsewhere."""

import json
import os
import pathlib
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until
from tests.support.weakened import Weaken

BAD_IDS = (
    "", ".", "..", "../x", "/x", "a/b", "a/../b", "x/", "a b", "a\nb", "a\tb", "@seccomp", "a@b", "%2e%2e", "\u00e4",
    "~", "$(id)", "a;b", "*", "x" * 1025, "x" * 256, "a\x1b[2J",
)  # fmt: skip


@pytest.fixture
def victim() -> Iterator[subprocess.Popen[bytes]]:
    """A process of the host that must survive."""
    process = subprocess.Popen(["/bin/sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.mark.parametrize("container", BAD_IDS)
def test_ids_that_are_paths(plain_runtime: Runtime, bundle: Bundle, container: str) -> None:
    """Refused by every command, without a file made or removed anywhere; no control code reaches the terminal."""
    plain_runtime.root.mkdir(mode=0o700)
    around = sorted(os.listdir(plain_runtime.root.parent))
    for args in (("create", "--bundle", bundle.path), ("run", "--bundle", bundle.path), ("delete",), ("state",),
                 ("start",), ("delete", "--force"), ("kill",)):  # fmt: skip
        result = plain_runtime.fails(*args, container) if args[-1] != "--force" else None
        assert result is None or "\x1b" not in result.stderr
    assert os.listdir(plain_runtime.root) == []
    assert [n for n in sorted(os.listdir(plain_runtime.root.parent)) if not n.startswith("output-")] == [
        n for n in around if not n.startswith("output-")
    ]


@pytest.mark.parametrize("how", ["link", "theirs", "writable", "file"])
def test_state_roots_that_are_not_ours(
    plain_runtime: Runtime, bundle: Bundle, workplace: pathlib.Path, how: str
) -> None:
    """A state root that is a link, somebody else's, or writable by others, is refused."""
    elsewhere = workplace / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    if how == "link":
        plain_runtime.root.symlink_to(elsewhere)
    elif how == "file":
        plain_runtime.root.touch()
    else:
        plain_runtime.root.mkdir(mode=0o700)
        if how == "theirs":
            os.chown(plain_runtime.root, 1000, 1000)
        else:
            plain_runtime.root.chmod(0o777)
    plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id())
    assert os.listdir(elsewhere) == []
    if how in ("theirs", "writable"):
        os.chown(plain_runtime.root, 0, 0)
        plain_runtime.root.chmod(0o700)
    else:
        plain_runtime.root.unlink()


def test_nobody_else_reads_the_state(plain_runtime: Runtime, bundle: Bundle) -> None:
    """State root, directories and records are for their owner, whatever umask the caller has."""
    bundle.process["env"] = ["PASSWORD=secret"]
    name = plain_runtime.id()
    code = "import os, sys; os.umask(0); os.execv(sys.argv[1], sys.argv[1:])"
    shell = ["/usr/bin/python3", "-c", code, *plain_runtime.argv("create", "--bundle", bundle.save().path, name)]
    with open("/dev/null", "r+") as null:
        subprocess.run(shell, stdin=null, stdout=null, stderr=null, check=True)
    for top, directories, files in os.walk(plain_runtime.root):
        for entry in (top, *(os.path.join(top, n) for n in (*directories, *files))):
            assert os.stat(entry).st_mode & 0o077 == 0, entry
    loose = [path for path in bundle.rootfs.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o002]
    assert [path for path in loose if path.name not in ("tmp", "loot")] == []


def test_a_pid_that_belongs_to_another(
    plain_runtime: Runtime, bundle: Bundle, victim: subprocess.Popen[bytes], weaken: Weaken
) -> None:
    """Once init's pid is another process's, kill, exec, pause and delete leave that alone."""
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    record = plain_runtime.root / name / "state.json"
    content = json.loads(record.read_text())
    os.kill(content["initPid"], 9)
    wait_until(lambda: plain_runtime.state(name)["status"] == "stopped")
    record.write_text(json.dumps(content | {"initPid": victim.pid}))
    assert plain_runtime.state(name)["status"] == "stopped"
    plain_runtime.fails("kill", name, "KILL")
    plain_runtime.fails("exec", name, "/bin/true")
    # Without the start time the victim would be taken for init.
    weak = weaken(plain_runtime, "state/process.py", "and stat.start == start", "")
    assert weak.state(name)["status"] == "running"
    plain_runtime("delete", "--force", name)
    assert victim.poll() is None


def test_control_codes_in_messages(plain_runtime: Runtime, bundle: Bundle, weaken: Weaken) -> None:
    """What a container's files and programs are called, or a hook of it says, does not steer the caller's terminal."""
    evil = "\x1b]0;owned\x07\x1b[2J\x9b31m\r"
    bundle.run(f"/no{evil}such")
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "such" in error and not [c for c in error if not c.isprintable() and c != "\n"]
    hook = bundle.rootfs / "hook"
    hook.write_text(f"#!/bin/sh\nprintf '{evil}said'; exit 1\n")
    hook.chmod(0o755)
    bundle.config["hooks"] = {"startContainer": [{"path": "/hook"}]}
    bundle.run("/bin/true")
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "said" in error and not [c for c in error if not c.isprintable() and c != "\n"]
    weak = weaken(plain_runtime, "log.py", "    if text.isprintable():\n", "    if text:\n")
    assert "\x1b" in weak.fails("run", "--bundle", bundle.path, weak.id()).stderr
