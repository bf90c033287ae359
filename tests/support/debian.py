"""Debian root file systems for tests, from the same cached recipes as the demonstrations."""

import pathlib

import pytest

from tools import debian_rootfs


def unpack(variant: str, directory: pathlib.Path) -> pathlib.Path:
    """A fresh copy of `systemd`, `nested` or `current` at `directory`; skips where the archive cannot be had."""
    try:
        debian_rootfs.unpack(variant, directory)
    except RuntimeError as error:
        pytest.skip(f"{error}; to force it: make deps with the Debian archive in reach")
    return directory
