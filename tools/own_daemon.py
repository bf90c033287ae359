"""A sysvisor-fs of a demonstration's or a benchmark's own: a launch starts it, and nothing is left of it."""

import os
import pathlib
import subprocess

PROGRAM = pathlib.Path(__file__).resolve().parents[1] / "bin/sysvisor-fs"


class OwnDaemon:
    """A context: launches made in it find or start the daemon of `directory`, unless the caller has named another."""

    def __init__(self, directory: pathlib.Path) -> None:
        self._variables = {
            "SYSVISOR_FS_RUN_DIR": f"{directory}/fs-run",
            "SYSVISOR_FS_MOUNTPOINT": f"{directory}/fs-mounts",
        }
        self._ours = "SYSVISOR_FS_RUN_DIR" not in os.environ

    def __enter__(self) -> None:
        if self._ours:
            os.makedirs(self._variables["SYSVISOR_FS_MOUNTPOINT"], exist_ok=True)
            os.environ.update(self._variables)

    def __exit__(self, *failure: object) -> None:
        if self._ours:
            if os.path.isdir(self._variables["SYSVISOR_FS_RUN_DIR"]):
                subprocess.run([str(PROGRAM), "stop", "--all"], check=False)
            for name in self._variables:
                del os.environ[name]
