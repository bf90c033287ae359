"""The last stage as a program of its own: what it calls, what it reports, and what it is made of."""

import fcntl
import importlib.util
import os
import pathlib
import shutil
import subprocess

import pytest

from sysvisor_runc.child import stage, stage_code
from sysvisor_runc.child.stage import IGNORE_ERROR, SAY_WHY, Call, Slot
from sysvisor_runc.kernel import syscall

ROOT = pathlib.Path(__file__).resolve().parents[2]
F_GET_SEALS = 1034
NEVER_OPEN = 0x7FFF_FFF0
"""A descriptor number above any limit: a small one may be open, since a test's pipe may get it."""


def run_image(image: bytes, *pass_fds: int) -> subprocess.CompletedProcess[bytes]:
    """Execute `image` from its sealed memory file."""
    fd = stage.memory_file(image)
    try:
        return subprocess.run(
            [f"/proc/self/fd/{fd}"], executable=f"/proc/{os.getpid()}/fd/{fd}", capture_output=True, pass_fds=pass_fds
        )
    finally:
        os.close(fd)


def test_calls_are_made_in_order() -> None:
    """Calls run one after the other and end in the program, with its arguments and environment."""
    calls = [
        Call("write", 1, b"first ", 6),
        Call("execve", b"/bin/sh\0", [b"sh", b"-c", b'echo "$0 $1 $A"', b"zero", b"one"], [b"A=env"]),
    ]
    assert run_image(stage.build(calls)).stdout == b"first zero one env\n"


def test_a_failure_is_reported_by_index() -> None:
    """The call that fails is told by its number and errno on the report descriptor, and nothing after it runs."""
    read_end, write_end = os.pipe()
    calls = [Call("fchdir", NEVER_OPEN, flags=IGNORE_ERROR), Call("fchdir", NEVER_OPEN), Call("write", 1, b"never", 5)]
    done = run_image(stage.build(calls, report_fd=write_end, exit_code=77), write_end)
    os.close(write_end)
    report = os.read(read_end, 16)
    os.close(read_end)
    assert report == (1).to_bytes(4, "little") + (9).to_bytes(4, "little")  # EBADF
    assert (done.returncode, done.stdout) == (77, b"")


def test_a_person_is_told_where_nobody_listens() -> None:
    """Without a reader the message goes to stderr as one line, with the errno in words."""
    calls = [Call("execve", b"/no/such\0", [b"x"], [], flags=SAY_WHY)]
    done = run_image(stage.build(calls, prefix="exec /no/such: "))
    assert (done.returncode, done.stderr) == (255, b"exec /no/such: no such file or directory\n")


def test_a_rare_errno_has_a_text_too() -> None:
    """An errno outside the table is an unknown error, never a stray pointer."""
    calls = [Call("pidfd_open", -1, 0, flags=SAY_WHY), Call("write", 1, b"never", 5)]
    done = run_image(stage.build(calls, prefix="x: "))
    assert done.stderr in (b"x: invalid argument\n", b"x: unknown error\n")


def test_a_fork_skips_the_parents_calls() -> None:
    """In the child of a clone the parent's calls are left out; the parent stores and writes the pid."""
    pid = Slot()
    calls = [
        Call("clone", 17, 0, 0, 0, 0, store=pid, skip=3),
        Call("write", 1, pid, 4),
        Call("wait4", -1, 0, 0, 0),
        Call("exit_group", 0),
        Call("write", 2, b"child", 5),
        Call("exit_group", 0),
    ]
    done = run_image(stage.build(calls))
    assert done.stderr == b"child"
    assert int.from_bytes(done.stdout, "little") > 1


def test_the_memory_file_is_sealed() -> None:
    """Nobody can change the program while it runs or after: every seal against writing is on it."""
    fd = stage.memory_file(stage.build([Call("exit_group", 0)]))
    try:
        assert fcntl.fcntl(fd, F_GET_SEALS) & 0xF == 0xF
        with pytest.raises(PermissionError):
            os.write(fd, b"x")
    finally:
        os.close(fd)


def test_the_code_is_what_the_source_compiles_to() -> None:
    """stage_code.py holds a build of stage.c: the same calls behave alike when compiled here and now."""
    if not shutil.which("gcc"):
        pytest.skip("needs gcc: apt-get install gcc forces it")
    spec = importlib.util.spec_from_file_location("stage_build", ROOT / "contrib/stage/build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    committed, fresh = bytes.fromhex(stage_code.CODE[syscall.MACHINE]), module.code_for(syscall.MACHINE)
    calls = [Call("write", 1, b"x", 1), Call("exit_group", 3)]
    image = stage.build(calls)
    at = image.index(committed)
    rebuilt = bytearray(image[:at] + fresh)
    rebuilt = bytearray(bytes(rebuilt).ljust(0x1000, b"\0") + image[0x1000:])
    # The segment's sizes follow the code's, which another compiler may make longer.
    size = (64 + 2 * 56 + len(fresh)).to_bytes(8, "little")
    rebuilt[64 + 32 : 64 + 48] = size + size
    done = run_image(bytes(rebuilt))
    assert (done.returncode, done.stdout) == (3, b"x")


def test_aarch64(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> None:
    """The same list runs on aarch64: with its code and numbers, under user-mode emulation."""
    emulator = shutil.which("qemu-aarch64-static")
    if not emulator:
        pytest.skip("needs qemu-user-static: apt-get install qemu-user-static forces it")
    monkeypatch.setattr(stage, "MACHINE", "aarch64")
    monkeypatch.setattr(stage, "NUMBERS", syscall._COMMON | syscall._AARCH64)
    image = tmp_path / "stage"
    calls = [Call("write", 1, b"arm ", 4), Call("fchdir", NEVER_OPEN, flags=SAY_WHY)]
    image.write_bytes(stage.build(calls, prefix="why: "))
    image.chmod(0o755)
    done = subprocess.run([emulator, str(image)], capture_output=True)
    assert (done.returncode, done.stdout, done.stderr) == (255, b"arm ", b"why: unknown error\n")
