"""OCI bundles for tests: a busybox root file system and a `config.json` that a test changes as it likes."""

import json
import os
import pathlib
import shutil
from typing import Any

from tools import busybox_rootfs

DEFAULT_ARGS = ("/bin/true",)


class Bundle:
    """A bundle directory. Change `config`, then `save()`; `rootfs` is the path of its root file system."""

    def __init__(self, path: pathlib.Path, config: dict[str, Any]) -> None:
        self.path = path
        self.config = config

    @property
    def rootfs(self) -> pathlib.Path:
        return self.path / "rootfs"

    @property
    def process(self) -> dict[str, Any]:
        process: dict[str, Any] = self.config["process"]
        return process

    @property
    def linux(self) -> dict[str, Any]:
        linux: dict[str, Any] = self.config.setdefault("linux", {})
        return linux

    def sh(self, script: str) -> "Bundle":
        """Make the container run a shell script as its first process."""
        return self.run("/bin/sh", "-c", script)

    def run(self, *args: str) -> "Bundle":
        """Make the container run this program, and save."""
        self.process["args"] = list(args)
        return self.save()

    def save(self) -> "Bundle":
        """Write `config.json`."""
        (self.path / "config.json").write_text(json.dumps(self.config, indent=2))
        return self


def default_config() -> dict[str, Any]:
    """What `sysvisor-runc spec` writes, as a test may change it, without a terminal."""
    from sysvisor_runc.spec.template import default_spec

    config: dict[str, Any] = json.loads(json.dumps(default_spec()))
    config["process"]["terminal"] = False
    return config


def make_bundle(path: pathlib.Path, template: pathlib.Path, args: tuple[str, ...] = DEFAULT_ARGS) -> Bundle:
    """A bundle at `path` whose rootfs is a copy of `template`; writable root, so that tests can look at effects."""
    path.mkdir(parents=True)
    shutil.copytree(template, path / "rootfs", symlinks=True)
    # The way to a bundle must be open to a container's mapped root.
    os.chmod(path, 0o755)
    bundle = Bundle(path, default_config())
    bundle.config["root"]["readonly"] = False
    return bundle.run(*args)


def make_rootfs(path: pathlib.Path) -> pathlib.Path:
    """A fresh busybox root file system at `path`."""
    busybox_rootfs.make(path)
    return path
