"""Debian root file systems for tests, from the same cached recipes as the demonstrations."""

import pathlib
import subprocess

import pytest

from tools import debian_rootfs


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
