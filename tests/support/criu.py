"""A criu that works on this machine's kernel: its own, else Debian's newer one, run through its own loader."""

import pathlib
import shutil
import subprocess

import pytest

from tests.support import debian


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
