"""Debian root file systems for tests, from the same cached recipes as the demonstrations."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from tools import debian_rootfs

# How many seconds a test has that may have to wait until its Debian is there.
PATIENCE = 400


def unpack(variant: str, directory: pathlib.Path) -> pathlib.Path:
    """A fresh copy of `systemd`, `nested` or `current` at `directory`; skips where the archive cannot be had."""
    try:
        debian_rootfs.unpack(variant, directory)
    except RuntimeError as error:
        pytest.skip(f"{error}; to force it: make deps with the Debian archive in reach")
    return directory


def programs(variant: str, directory: pathlib.Path, *names: str) -> pathlib.Path:
    """Some programs out of /usr/bin of a variant, at `directory`; skips likewise."""
    try:
        archive = debian_rootfs.archive(variant)
    except RuntimeError as error:
        pytest.skip(f"{error}; to force it: make deps with the Debian archive in reach")
    directory.mkdir()
    members = [f"./usr/bin/{name}" for name in names]
    command = ["tar", "--extract", f"--file={archive}", f"--directory={directory}", "--strip-components=3", *members]
    subprocess.run(command, check=True)
    return directory


@contextlib.contextmanager
def fetched_ahead(items: list[pytest.Item]) -> Iterator[None]:
    """Meanwhile fetch what tests name by the marker `debian`, in the order of need: making one takes a minute or two.

    Who needs one that is being made waits for it (`tools.debian_rootfs.archive`).
    """
    marked = [mark.args[0] for item in items for mark in item.iter_markers("debian")]
    missing = [name for name in dict.fromkeys(marked) if not debian_rootfs.cached(name).exists()]
    if not missing:
        yield
        return
    command = [sys.executable, debian_rootfs.__file__, "--fetch", *missing]
    quiet = subprocess.DEVNULL  # who needs what could not be had tells why
    fetching = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        yield
    finally:
        _end(fetching)
        for name in missing:
            debian_rootfs.discard_unfinished(name)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started in its group; what they have written is left to the caller."""
    while process.poll() is None or _exists(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(0.02)


def _exists(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
