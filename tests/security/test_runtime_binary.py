"""CVE-2019-5736: nothing of the host's may be writable through /proc/*/exe of a process that was ours a moment ago.

All without a user namespace and with every capability, where neither ids nor dumpable=0 would help. The interpreter at
stake is a copy, so that an attack that works does no harm.
"""

import os
import pathlib
import shutil
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until
from tests.support.weakened import Weaken

Hostile = Callable[..., Bundle]
STAGE = "/memfd:sysvisor-runc init (deleted)"
LEAVE = 'os.execve(stage.memory_file(image), ["sysvisor-runc", "init"], {})'
# Without the last stage: the interpreter itself executes the program.
DIRECTLY = (
    "channel.close(), os.close(read_fd), os.close(write_fd), os.read(start, 1), os.closerange(3, 256), "
    'os.execve(path, process.args, dict(e.split("=", 1) for e in process.env))'
)


@pytest.fixture
def interpreter_copy(workplace: pathlib.Path) -> pathlib.Path:
    """A copy of the interpreter that finds the real one's library, and must be as it was at the end unless deleted."""
    directory = workplace / "python"
    directory.mkdir()
    copy = directory / "python3"
    shutil.copy(os.path.realpath("/usr/bin/python3"), copy)
    (directory / "pyvenv.cfg").write_text("home = /usr/bin\n")
    return copy


def run_by(runtime: Runtime, interpreter: pathlib.Path) -> Runtime:
    """Have the runtime's entry script run by another interpreter."""
    lines = runtime.program.read_text().splitlines(keepends=True)
    runtime.program.write_text(f"#!{interpreter} -SI\n" + "".join(lines[1:]))
    return runtime


def was_overwritten(interpreter: pathlib.Path) -> bool:
    return interpreter.read_bytes()[:5] == b"OWNED"


def loot(bundle: Bundle) -> str:
    path = bundle.rootfs / "loot"
    return path.read_text() if path.exists() else ""


def attack(runtime: Runtime, bundle: Bundle, observer: Runtime) -> str:
    """Run the bundle detached (so that the command itself does not keep its interpreter busy); what it got hold of."""
    name = runtime.id()
    runtime("run", "--detach", "--no-supervisor", "--bundle", bundle.path, name, check=False)
    wait_until(lambda: name not in observer.ids() or observer.state(name)["status"] == "stopped", 15, "the end")
    return loot(bundle)


@pytest.fixture
def copied(weaken: Weaken, plain_runtime: Runtime, interpreter_copy: pathlib.Path) -> Runtime:
    """The runtime as it is, but run by the copy."""
    return run_by(weaken(plain_runtime, "__init__.py"), interpreter_copy)


@pytest.mark.parametrize("args", [("/proc/self/exe",), ("/script",), ("/proc/1/exe",)])
def test_entry_point_is_our_own_program(
    copied: Runtime, plain_runtime: Runtime, hostile: Hostile, interpreter_copy: pathlib.Path, args: tuple[str, ...]
) -> None:
    """args of /proc/self/exe, and a script whose interpreter that is, meet the last stage and no file of the host's."""
    bundle = hostile(*args)
    (bundle.rootfs / "script").write_text("#!/proc/self/exe\n")
    (bundle.rootfs / "script").chmod(0o755)
    got = attack(copied, bundle, plain_runtime)
    assert "python" not in got and "overwritten yes" not in got
    assert not was_overwritten(interpreter_copy)


@pytest.mark.parametrize("args", [("/proc/self/exe",), ("/script",)])
def test_without_the_last_stage_the_interpreter_is_overwritten(
    weaken: Weaken, plain_runtime: Runtime, hostile: Hostile, interpreter_copy: pathlib.Path, args: tuple[str, ...]
) -> None:
    """The same bundles, executed by the interpreter itself."""
    weak = run_by(weaken(plain_runtime, "child/main.py", LEAVE, DIRECTLY), interpreter_copy)
    bundle = hostile(*args)
    (bundle.rootfs / "script").write_text("#!/proc/self/exe\n")
    (bundle.rootfs / "script").chmod(0o755)
    attack(weak, bundle, plain_runtime)
    assert was_overwritten(interpreter_copy)


def test_created_init_is_no_interpreter(copied: Runtime, hostile: Hostile) -> None:
    """While a container waits for `start`, /proc/PID/exe is a sealed memory file that even root cannot write."""
    bundle = hostile("/attacker", "wait")
    name = copied.id()
    copied("create", "--bundle", bundle.path, name)
    exe = f"/proc/{copied.state(name)['pid']}/exe"
    assert os.readlink(exe) == STAGE
    with pytest.raises(OSError):
        os.open(exe, os.O_WRONLY)
    # Nor when it is not executing any more: the seals are for ever.
    kept = os.open(exe, os.O_RDONLY | os.O_CLOEXEC)
    copied("start", name)
    wait_until(lambda: os.readlink(exe) != STAGE)
    writer = -1
    try:
        writer = os.open(f"/proc/self/fd/{kept}", os.O_RDWR | os.O_CLOEXEC)
        with pytest.raises(PermissionError):
            os.write(writer, b"OWNED")
        with pytest.raises(PermissionError):
            os.ftruncate(writer, 0)
    finally:
        os.close(kept)
        if writer >= 0:
            os.close(writer)


def test_exec_of_our_own_program(copied: Runtime, hostile: Hostile, interpreter_copy: pathlib.Path) -> None:
    """`exec` of /proc/self/exe, or of a program of the rootfs replaced by such a script, gets hold of nothing."""
    bundle = hostile("/attacker", "wait")
    script = bundle.rootfs / "innocent"
    script.write_text("#!/proc/self/exe\n")
    script.chmod(0o755)
    name = copied.id()
    copied("run", "--detach", "--bundle", bundle.path, name)
    for program in ("/proc/self/exe", "/innocent"):
        copied("exec", name, program, check=False)
    assert "python" not in loot(bundle) and "overwritten yes" not in loot(bundle)
    assert not was_overwritten(interpreter_copy)


def test_start_hook_of_the_rootfs(copied: Runtime, hostile: Hostile, interpreter_copy: pathlib.Path) -> None:
    """A startContainer hook is a program of the rootfs: it meets neither our interpreter nor rights of ours."""
    bundle = hostile("/bin/true")
    hook = bundle.rootfs / "hook"
    hook.write_text("#!/bin/sh\nreadlink /proc/1/exe >/seen; grep CapEff /proc/self/status >>/seen; exit 0\n")
    script = bundle.rootfs / "script"
    script.write_text("#!/proc/self/exe\n")
    for path in (hook, script):
        path.chmod(0o755)
    limited = ["CAP_KILL"]
    bundle.process["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), limited)
    bundle.config["hooks"] = {"startContainer": [{"path": "/hook"}, {"path": "/script"}]}
    bundle.save()
    name = copied.id()
    copied("create", "--bundle", bundle.path, name)
    copied("start", name, check=False)
    seen = (bundle.rootfs / "seen").read_text()
    assert "python" not in seen
    assert int(seen.split("CapEff:")[1], 16) == 1 << 5
    assert "python" not in loot(bundle) and not was_overwritten(interpreter_copy)
