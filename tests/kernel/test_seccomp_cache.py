"""The cache of compiled filters: what is a hit, what is not believed, and that it never stands in the way."""

import os
import pathlib
import stat
import subprocess
import sys

import pytest

from sysvisor_runc.plan import seccomp, seccomp_cache, seccomp_compile
from sysvisor_runc.spec.types import Seccomp
from tests.support import source

PROFILE: Seccomp = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"names": ["getpgid", "no_such_call"], "action": "SCMP_ACT_ERRNO"}],
}
FORGED = bytes(range(8))  # never loaded


@pytest.fixture
def cache(tmp_path: pathlib.Path) -> pathlib.Path:
    """Where the entries of a state root are."""
    return tmp_path / "@seccomp"


def compile_twice(cache: pathlib.Path) -> tuple[seccomp_cache.Filter, pathlib.Path]:
    """Compile the profile into the cache; the filter and the one entry."""
    result = seccomp.compile(PROFILE, str(cache))
    (entry,) = cache.iterdir()
    return result, entry


def forge(entry: pathlib.Path) -> None:
    """Put another filter under the same key, in perfect form."""
    forged = seccomp_cache.Filter(FORGED, 0, ())
    library = seccomp_cache.Library(str(pathlib.Path("/proc/self/exe").resolve()))
    seccomp_compile.store(str(entry), bytes.fromhex(entry.name), forged, library)


def test_entry_is_private(cache: pathlib.Path) -> None:
    """Only the owner of the state root reads or writes the cache."""
    _, entry = compile_twice(cache)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (cache, entry)]
    assert modes == [0o700, 0o600]


def test_hit_gives_what_was_compiled(cache: pathlib.Path) -> None:
    """A hit has the same bytes, flags and notes."""
    made, entry = compile_twice(cache)
    found = seccomp.compile(PROFILE, str(cache))
    assert (found.bpf, found.flags, found.notes) == (made.bpf, made.flags, made.notes)
    assert [*cache.iterdir()] == [entry]


def test_hit_is_believed(cache: pathlib.Path) -> None:
    """What stands in a sound entry is what is loaded: the tests of what is not believed rest on this."""
    _, entry = compile_twice(cache)
    forge(entry)
    assert seccomp.compile(PROFILE, str(cache)).bpf == FORGED


def test_hit_loads_neither_libseccomp_nor_the_compiler(cache: pathlib.Path) -> None:
    """The first launch of a profile loads libseccomp, the second does not, nor any module to do with it."""
    program = f"""
import sys
sys.path.insert(0, {str(source.ROOT)!r})
from sysvisor_runc.plan import seccomp
seccomp.compile({PROFILE!r}, {str(cache)!r})
print("libseccomp" in open("/proc/self/maps").read(), *sorted(n for n in sys.modules if n.startswith("sysvisor_runc.")))
"""
    runs = [
        subprocess.run([sys.executable, "-SI", "-c", program], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert runs[0].startswith("True ")
    small = ["errors", "plan", "plan.seccomp", "plan.seccomp_cache", "plan.tags", "version"]
    assert runs[1].split() == ["False", *(f"sysvisor_runc.{name}" for name in small)]


def test_missing_libseccomp_is_told() -> None:
    """Where there is no libseccomp the names are still there for `features`, and compiling says what to install."""
    program = f"""
import sys, _ctypes
sys.path.insert(0, {str(source.ROOT)!r})
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.plan import seccomp, seccomp_compile
dlopen = _ctypes.dlopen
def fail(name, mode):
    if name: raise OSError(name + ": cannot open shared object file")
    return dlopen(name, mode)
_ctypes.dlopen = fail
try:
    seccomp.compile({PROFILE!r}, None)
except SysvisorError as error:
    print(error.message, "-", error.hint)
"""
    run = subprocess.run([sys.executable, "-SI", "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.startswith("cannot load libseccomp: libseccomp.so.2: cannot open")
    assert "libseccomp2" in run.stdout


def test_other_profiles_are_other_entries(cache: pathlib.Path) -> None:
    """The whole profile is the key, but for where the listener is and what it is told."""
    variants: list[dict[str, object]] = [
        {}, {"flags": []}, {"defaultErrnoRet": 1}, {"listenerPath": "/a"}, {"listenerPath": "/b"}
    ]  # fmt: skip
    for fields in variants:
        profile: Seccomp = {**PROFILE, "defaultAction": "SCMP_ACT_ERRNO", **fields}  # type: ignore[typeddict-item]  # any field
        seccomp.compile(profile, str(cache))
    assert len([*cache.iterdir()]) == 3


@pytest.mark.parametrize("offset", [0, 8, 40, 72, 80, 90, 121, -1])
def test_damaged_entry_is_no_hit(cache: pathlib.Path, offset: int) -> None:
    """One flipped byte anywhere, and the filter is compiled anew and the entry replaced."""
    made, entry = compile_twice(cache)
    sound = entry.read_bytes()
    damaged = bytearray(sound)
    damaged[offset] ^= 1
    entry.write_bytes(damaged)
    assert seccomp.compile(PROFILE, str(cache)).bpf == made.bpf
    assert entry.read_bytes() == sound


@pytest.mark.parametrize("size", [0, 1, 39, 41, 119, 121, 300])
def test_truncated_entry_is_no_hit(cache: pathlib.Path, size: int) -> None:
    """Nor is one that was cut short."""
    made, entry = compile_twice(cache)
    entry.write_bytes((entry.read_bytes() + bytes(300))[:size])
    assert seccomp.compile(PROFILE, str(cache)).bpf == made.bpf


def test_moved_entry_is_no_hit(cache: pathlib.Path) -> None:
    """An entry renamed to another profile's name is not taken for it."""
    made, entry = compile_twice(cache)
    seccomp.compile({"defaultAction": "SCMP_ACT_ALLOW"}, str(cache))
    (other,) = set(cache.iterdir()) - {entry}
    other.rename(entry)
    assert seccomp.compile(PROFILE, str(cache)).bpf == made.bpf


@pytest.mark.parametrize("mode", [0o620, 0o602])
def test_entry_that_others_can_write_is_no_hit(cache: pathlib.Path, mode: int) -> None:
    """A sound entry counts for nothing if others could have made it."""
    made, entry = compile_twice(cache)
    forge(entry)
    entry.chmod(mode)
    assert seccomp.compile(PROFILE, str(cache)).bpf == made.bpf


def test_foreign_entry_is_no_hit(cache: pathlib.Path) -> None:
    """Nor does one that belongs to somebody else."""
    if os.geteuid() != 0:
        pytest.skip("only root gives files away; to force it: sudo make test")
    made, entry = compile_twice(cache)
    forge(entry)
    os.chown(entry, 65534, 65534)
    assert seccomp.compile(PROFILE, str(cache)).bpf == made.bpf


def test_linked_entry_is_no_hit(cache: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Nor one behind a symbolic link, and a fifo in its place blocks nobody."""
    made, entry = compile_twice(cache)
    forge(entry)
    entry.rename(tmp_path / "elsewhere")
    entry.symlink_to(tmp_path / "elsewhere")
    assert seccomp.compile(PROFILE, str(cache)).bpf == made.bpf
    entry.unlink()
    os.mkfifo(entry)
    assert seccomp.compile(PROFILE, str(cache)).bpf == made.bpf


def test_entry_of_another_library_is_no_hit(cache: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """An entry is good as long as the libseccomp that made it is the one that is installed."""
    made, entry = compile_twice(cache)
    file = tmp_path / "libseccomp.so.2"
    file.write_text("old")
    seccomp_compile.store(
        str(entry), bytes.fromhex(entry.name), seccomp_cache.Filter(FORGED, 0, ()), seccomp_cache.Library(str(file))
    )
    assert seccomp.compile(PROFILE, str(cache)).bpf == FORGED
    file.write_text("newer")
    assert seccomp.compile(PROFILE, str(cache)).bpf == made.bpf


def test_unusable_cache_is_no_error(tmp_path: pathlib.Path) -> None:
    """Without a state root, or with a file in the cache's place, the filter is compiled all the same."""
    expected = seccomp.compile(PROFILE, None).bpf
    (tmp_path / "file").touch()
    for place in ("missing/@seccomp", "file/@seccomp", "file"):
        assert seccomp.compile(PROFILE, str(tmp_path / place)).bpf == expected
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_full_disk_is_no_error(cache: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """What cannot be written whole leaves nothing that is taken for a filter."""
    if os.geteuid() != 0:
        pytest.skip("mounts a full file system; to force it: sudo make test")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,nr_inodes=8", "none", tmp_path], check=True)
    try:
        expected = seccomp.compile(PROFILE, None).bpf
        cache.mkdir()
        (tmp_path / "ballast").write_bytes(bytes(4096))
        for _ in range(2):
            assert seccomp.compile(PROFILE, str(cache)).bpf == expected
        assert [*cache.iterdir()] == []
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_old_entries_go(cache: pathlib.Path) -> None:
    """The cache keeps the newest 64 entries."""
    cache.mkdir()
    for number in range(80):
        path = cache / f"old{number}"
        path.touch()
        os.utime(path, (number, number))
    seccomp.compile(PROFILE, str(cache))
    assert len([*cache.iterdir()]) == 64
    assert not (cache / "old16").exists()
    assert (cache / "old17").exists()
