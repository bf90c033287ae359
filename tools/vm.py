"""`make test-vm`: tests on Debian's own kernel, in an emulated machine whose pid 1 is systemd.

There is what other beds lack: pure cgroup v2 with every controller, cpuset included, two CPUs, AppArmor, time
namespaces, kernel modules, tracking of changed memory, and Debian's CRIU. No hardware help is needed (no /dev/kvm), so
it is slow, and what runs is the selection below. Nothing of the host is visible inside but a copy of the tree; the disk
is thrown away afterwards.

By hand: `python3 -m tools.vm [--limit SECONDS] [pytest's arguments]`; tests that are named replace the selection.
"""

import argparse
import fcntl
import hashlib
import os
import pathlib
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tools import debian_rootfs
from tools.show import Waiting, heading

SOURCE = pathlib.Path(__file__).resolve().parents[1]
# What user-mode-linux cannot show: saving and restoring, time namespaces, cpuset on cgroup v2, Debian's own AppArmor
# and switch for user namespaces.
SELECTION = (
    "tests/integration/test_namespaces.py",
    "tests/integration/test_apparmor.py",
    "tests/integration/test_cgroup_run.py::test_cpu",
    "tests/integration/test_update.py",
    "tests/security/test_users_limits.py",
    "tests/integration/test_checkpoint.py",
    "tests/integration/test_checkpoint_live.py",
)
# Of the tree, what is no part of it.
_LEFT_OUT = (".git", ".venv", ".cache", "build", "__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache")
_MARK = "test-vm: exit code "
_SIZE = "6G"

# The second serial line is what is read here; the first is the console.
_UNIT = f"""[Unit]
Description=The tests
After=basic.target dbus.service systemd-tmpfiles-setup.service
SuccessAction=poweroff-force
FailureAction=poweroff-force
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=HOME=/root LANG=C.UTF-8 TERM=dumb COLUMNS=120 SYSVISOR_PATIENCE=4
StandardOutput=tty
StandardError=tty
TTYPath=/dev/ttyS1
ExecStart=/bin/sh -c 'mkdir -p /src && tar -C /src -xf /dev/vdb && sh /src/.vm/script; echo "{_MARK}$$?"; sleep 1'
"""
# What a machine that lives for some minutes does not need; compiling AppArmor's profiles takes one of them alone.
_MASKED = (
    "apparmor.service",
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "serial-getty@ttyS0.service", "systemd-update-utmp.service", "getty@tty1.service",
)  # fmt: skip
# Debian's pytest is older than the one of the virtual environment, and knows fewer settings.
_SETTINGS = """[pytest]
addopts = --import-mode=importlib -p no:cacheprovider
timeout = 900
asyncio_mode = strict
markers =
    root
    slow
    system
    debian
    guest
    leaks_allowed
"""


class Image:
    """A disk to boot from, its kernel and its initial RAM disk, made once and cached.

    Attributes: `disk`, `kernel`, `initrd`.
    """

    def __init__(self) -> None:
        units = hashlib.sha256(repr((_UNIT, _MASKED, _SIZE)).encode()).hexdigest()[:6]
        self.directory = debian_rootfs.CACHE / f"{debian_rootfs.key('vm')}-{units}.image"
        self.disk, self.kernel, self.initrd = (self.directory / name for name in ("root.img", "vmlinuz", "initrd"))

    def make(self) -> None:
        """Make it unless it is there. Raises RuntimeError with what went wrong."""
        debian_rootfs.CACHE.mkdir(parents=True, exist_ok=True)
        with open(debian_rootfs.CACHE / "vm.image.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if self.directory.exists():
                return
            for old in debian_rootfs.CACHE.glob("vm-*.image"):
                shutil.rmtree(old)
            with Waiting("Debian with a kernel, for the emulated machine (some minutes, once)"):
                debian_rootfs.archive("vm")
            with Waiting("its disk"), tempfile.TemporaryDirectory(dir=debian_rootfs.CACHE, prefix="vm.") as name:
                self._fill(pathlib.Path(name))

    def _fill(self, place: pathlib.Path) -> None:
        root, made = place / "root", place / "made"
        made.mkdir()
        debian_rootfs.unpack("vm", root)
        units = root / "etc/systemd/system"
        (units / "tests.service").write_text(_UNIT)
        (units / "multi-user.target.wants/tests.service").symlink_to("/etc/systemd/system/tests.service")
        for name in _MASKED:
            (units / name).symlink_to("/dev/null")
        for name, pattern in (("vmlinuz", "vmlinuz-*"), ("initrd", "initrd.img-*")):
            shutil.copy(next((root / "boot").glob(pattern)), made / name)
        command = ["mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", str(root), str(made / "root.img"), _SIZE]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"mke2fs: {done.stderr.strip()}")
        made.rename(self.directory)


def pack(arguments: Sequence[str], archive: pathlib.Path, limit: float) -> None:
    """Write the tree and the script that runs pytest with these arguments, for `limit` seconds, to a tar archive."""
    extra = archive.with_suffix(".extra")
    (extra / ".vm").mkdir(parents=True)
    (extra / ".vm/pytest.ini").write_text(_SETTINGS)
    # Interrupted, it still tells of the failures so far.
    words = ["timeout", "--foreground", "--signal=INT", f"{limit:.0f}"]
    words += ["python3", "-m", "pytest", "-c", ".vm/pytest.ini", "--rootdir", "/src", "-p", "tools.vm_report"]
    words += ["--tb=short", *arguments]
    (extra / ".vm/script").write_text(f"cd /src\n{shlex.join(words)}\n")
    left_out = [f"--exclude={name}" for name in _LEFT_OUT]
    subprocess.run(["tar", "-cf", archive, *left_out, "-C", SOURCE, ".", "-C", extra, ".vm"], check=True)


def chosen(arguments: Sequence[str]) -> list[str]:
    """What pytest is told: what the user wants, and the selection unless tests are named."""
    named = any((SOURCE / word.partition("::")[0]).exists() for word in arguments if not word.startswith("-"))
    return ["-v", "-rs", *arguments, *([] if named else SELECTION)]


def command(image: Image, archive: pathlib.Path, console: pathlib.Path) -> list[str]:
    """The emulator's words."""
    words = ["qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off", "-smp", "2"]
    words += ["-m", "2G", "-display", "none", "-no-reboot", "-nodefaults"]
    words += ["-serial", f"file:{console}", "-chardev", "stdio,id=results,signal=off", "-serial", "chardev:results"]
    words += ["-kernel", str(image.kernel), "-initrd", str(image.initrd), "-device", "virtio-rng-pci"]
    words += ["-drive", f"file={image.disk},format=raw,if=virtio,snapshot=on,cache=unsafe"]
    words += ["-drive", f"file={archive},format=raw,if=virtio,readonly=on"]
    boot = ["root=/dev/vda", "rw", "console=ttyS0", "loglevel=4", "panic=-1", "mitigations=off", "security=apparmor"]
    return [*words, "-append", " ".join([*boot, "systemd.show_status=no"])]


@contextmanager
def running(words: list[str], limit: float) -> Iterator[subprocess.Popen[str]]:
    """The emulator, ended when the context is left or `limit` seconds are over."""
    process = subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    timer = threading.Timer(limit, process.kill)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        process.kill()
        process.wait()


def run(image: Image, arguments: Sequence[str], limit: float) -> int:
    """Run pytest inside and show what it says; its exit code, 124 if it has not told one."""
    with tempfile.TemporaryDirectory(prefix="test-vm.") as name:
        console = pathlib.Path(name, "console")
        archive = pathlib.Path(name, "tree.tar")
        pack(arguments, archive, limit * 0.7)
        began = time.monotonic()
        with running(command(image, archive, console), limit) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith(_MARK):
                    return int(line.removeprefix(_MARK))
                minutes, seconds = divmod(int(time.monotonic() - began), 60)
                print(f"{minutes:3}:{seconds:02} {line.rstrip()}", flush=True)
        said = console.read_text(errors="replace") if console.exists() else ""
        print(f"test-vm: no result within {limit:.0f} s; the console's last words:\n{said[-2000:]}", file=sys.stderr)
        return 124


def main() -> int:
    parser = argparse.ArgumentParser("make test-vm", description="run tests on Debian's kernel", allow_abbrev=False)
    parser.add_argument("--limit", type=float, default=10800, metavar="SECONDS", help="for all of it (10800)")
    options, arguments = parser.parse_known_args()
    # Whatever ends this ends the emulator.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    if platform.machine() != "x86_64" or os.geteuid() != 0 or not shutil.which("qemu-system-x86_64"):
        print("test-vm: needs root, an x86_64 machine and qemu-system-x86 (sudo make test-vm)", file=sys.stderr)
        return 2
    try:
        image = Image()
        image.make()
        heading("tests on Debian's kernel, emulated: booting takes about a minute")
        return run(image, chosen(arguments), options.limit)
    except RuntimeError as error:
        print(f"test-vm: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("test-vm: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
