"""Debian root file systems for demonstrations and tests, made by mmdebstrap once and cached.

A variant names what is in it:
  systemd  boots: systemd as init, with D-Bus, procps, iproute2
  nested   the same with Docker, Podman's needs and their network tools, to run containers inside
  current  nothing but the newest runc, crun and containerd of Debian (sid): the former to be run inside
  criu     CRIU 4, which recent kernels need, to be run through its own loader on the host; and containerd 1.7
  vm       boots in an emulator with a kernel of its own, and has what the tests need: see test_vm.py

By hand: `python3 tools/debian_rootfs.py systemd DIRECTORY`; with `--fetch VARIANT…` they are only made and cached.
"""

import contextlib
import fcntl
import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Iterator

CACHE = pathlib.Path(os.environ.get("SYSVISOR_CACHE", pathlib.Path(__file__).resolve().parents[1] / ".cache"))
_BOOTS = ("systemd", "systemd-sysv", "dbus", "procps", "iproute2", "util-linux", "libpam-systemd")
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "systemd": ("bookworm", _BOOTS),
    "nested": (
        "bookworm",
        (*_BOOTS, "docker.io", "iptables", "ca-certificates", "busybox-static", "bubblewrap", "uidmap", "podman",
         "fuse-overlayfs", "slirp4netns", "crun", "curl", "netcat-openbsd"),
    ),
    "current": ("sid", ("runc", "crun", "containerd", "busybox-static")),
    "criu": ("trixie", ("criu", "containerd")),
    "vm": (
        "bookworm",
        (*_BOOTS, "linux-image-amd64", "udev", "kmod", "e2fsprogs", "apparmor", "criu", "busybox-static", "uidmap",
         "iptables", "gcc", "libc6-dev", "runc", "psmisc", "libseccomp2", "strace",
         "python3", "python3-grpcio", "python3-protobuf", "python3-jeepney", "python3-pyroute2", "python3-prctl",
         "python3-uvloop", "python3-pytest", "python3-pytest-asyncio", "python3-pytest-timeout", "python3-pexpect",
         "python3-hypothesis", "python3-jsonschema"),
    ),
}  # fmt: skip

# Before the packages: an initial RAM disk that holds what an emulated machine has, since unpacking is slow there.
_ESSENTIAL = {
    "vm": (
        'mkdir -p "$1/etc/initramfs-tools/conf.d" "$1/usr/share/initramfs-tools/modules.d"',
        'echo MODULES=list >"$1/etc/initramfs-tools/conf.d/vm"',
        'printf "virtio_pci\\nvirtio_blk\\next4\\n" >"$1/usr/share/initramfs-tools/modules.d/vm"',
    )
}

# What would only wait for hardware or the outside in a container, and a journal that a test can read.
_CUSTOMIZE = (
    'echo sysvisor >"$1/etc/hostname"',
    'printf "127.0.0.1 localhost\\n" >"$1/etc/hosts"',
    'rm -f "$1/etc/machine-id" "$1/var/lib/dbus/machine-id"; touch "$1/etc/machine-id"',
    'chroot "$1" passwd -d root',
    'rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/*.bin "$1"/usr/share/doc/* "$1"/usr/share/man/*',
)


def key(variant: str) -> str:
    """A name for what the recipe makes: a changed recipe is a new cache entry."""
    own = (_ESSENTIAL[variant],) if variant in _ESSENTIAL else ()
    recipe = repr((VARIANTS[variant], _CUSTOMIZE, os.uname().machine, *own))
    return f"{variant}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def cached(variant: str) -> pathlib.Path:
    """Where the archive of a variant is once it has been made."""
    return CACHE / f"{key(variant)}.tar"


def archive(variant: str) -> pathlib.Path:
    """The tar archive of a variant, made now if it is not cached. Raises RuntimeError with what went wrong."""
    path = cached(variant)
    with _locked(variant):
        if not path.exists():
            _build(variant, path)
    return path


def discard_unfinished(variant: str) -> None:
    """Remove what a build that was killed has left, unless another one is at it. The next build would do so as well."""
    with contextlib.suppress(BlockingIOError), _locked(variant, fcntl.LOCK_NB):
        _clear(variant)


@contextlib.contextmanager
def _locked(variant: str, flags: int = 0) -> Iterator[None]:
    """Nobody else makes this variant meanwhile. With LOCK_NB raises BlockingIOError if somebody does."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with open(CACHE / f"{variant}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | flags)
        yield


def _clear(variant: str) -> None:
    shutil.rmtree(CACHE / f"{variant}.work", ignore_errors=True)
    for unfinished in CACHE.glob(f"{variant}-*.partial"):
        unfinished.unlink()


def _build(variant: str, path: pathlib.Path) -> None:
    if not shutil.which("mmdebstrap"):
        raise RuntimeError("no mmdebstrap here: install it, or run make deps")
    _clear(variant)
    for old in CACHE.glob(f"{variant}-*.tar"):
        old.unlink()
    work = CACHE / f"{variant}.work"
    work.mkdir()
    suite, packages = VARIANTS[variant]
    partial = path.with_suffix(".tar.partial")
    # What it mounts goes with it if it is killed.
    command = ["unshare", "--mount"] if os.geteuid() == 0 else []
    command += ["mmdebstrap", "--variant=minbase", "--format=tar", f"--include={','.join(packages)}"]
    command += [f"--essential-hook={hook}" for hook in _ESSENTIAL.get(variant, ())]
    command += [f"--customize-hook={hook}" for hook in _CUSTOMIZE]
    if suite == "sid":
        # Its index expires within days, and mirrors lag: an old sid will do. Signatures are checked all the same.
        command.append('--aptopt=Acquire::Check-Valid-Until "false"')
    done = subprocess.run(
        [*command, suite, str(partial)], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        env=os.environ | {"TMPDIR": str(work)},
    )  # fmt: skip
    if done.returncode != 0:
        _clear(variant)
        errors = [line for line in done.stderr.splitlines() if line.startswith("E:")] or [done.stderr.strip()[-400:]]
        raise RuntimeError(f"mmdebstrap {suite} failed: {' '.join(errors)}")
    partial.rename(path)
    _clear(variant)


def unpack(variant: str, directory: pathlib.Path) -> None:
    """Put a fresh copy of a variant into `directory` (made if absent), owners as in the archive."""
    directory.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["tar", "--extract", "--file", str(archive(variant)), "--directory", str(directory), "--numeric-owner",
         "--xattrs", "--xattrs-include=*", "--exclude=./dev/*"],
        check=True,
    )  # fmt: skip


def main() -> int:
    """What `python3 tools/debian_rootfs.py` does; its exit code."""
    command, *words = sys.argv[1:] or [""]
    fetch = command == "--fetch"
    if not VARIANTS.keys() >= set(words if fetch else [command]) or (not words if fetch else len(words) != 1):
        variants = "|".join(VARIANTS)
        print(
            f"usage: debian_rootfs.py {variants} DIRECTORY\n       debian_rootfs.py --fetch VARIANT…", file=sys.stderr
        )
        return 2
    try:
        if fetch:
            for variant in words:
                archive(variant)
        else:
            unpack(command, pathlib.Path(words[0]))
    except RuntimeError as error:
        print(f"debian_rootfs: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
