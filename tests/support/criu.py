"""A criu that works on this machine's kernel: its own, else Debian's newer one, run through its own loader;
and a program whose state shows."""

import pathlib
import shutil
import subprocess

import pytest

from tests.support import debian
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until

COUNTER = "i=0; while :; do i=$((i+1)); echo $i >/count; sleep 0.05; done"


def works(program: str) -> bool:
    """Whether criu says that it can work here."""
    return subprocess.run([program, "check"], stdin=subprocess.DEVNULL, capture_output=True).returncode == 0


def program(directory: pathlib.Path) -> str:
    """The path of a criu; what has to be unpacked for it goes to `directory`. Skips where there is none."""
    own = shutil.which("criu")
    if own and works(own):
        return own
    root = directory / "root"
    debian.unpack("criu", root)
    loader = next(root.glob("usr/lib*/ld-linux-*.so.*"), None) or next(root.glob("lib*/ld-linux-*.so.*"))
    libraries = ":".join(str(path) for path in root.glob("usr/lib/*-linux-gnu"))
    script = directory / "criu"
    script.write_text(f'#!/bin/sh\nexec {loader} --library-path {libraries} {root}/usr/sbin/criu "$@"\n')
    script.chmod(0o755)
    if not works(str(script)):
        pytest.skip("criu cannot work on this kernel; to force it: one with CONFIG_CHECKPOINT_RESTORE")
    return str(script)


def count(bundle: Bundle) -> int:
    """How far the program COUNTER of a bundle has got."""
    try:
        return int((bundle.rootfs / "count").read_text() or 0)
    except (FileNotFoundError, ValueError):
        return 0


def counts_on(bundle: Bundle, seen: int) -> None:
    """Wait until it is beyond what was seen."""
    wait_until(lambda: count(bundle) > seen, 20, f"a count beyond {seen}")


def start_counter(runtime: Runtime, bundle: Bundle) -> str:
    """The id of a new container that counts."""
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.sh(COUNTER).path, name)
    counts_on(bundle, 3)
    return name


def images(runtime: Runtime) -> pathlib.Path:
    """Where a test has its images."""
    return runtime.directory / "images"
