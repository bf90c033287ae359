"""A sysvisor-fs of a test's own: its directory, which launches find by the environment, and its end."""

import json
import os
import pathlib
import signal
import subprocess
from typing import Any

from tests.support.runtime import SOURCE

PROGRAM = SOURCE / "bin/sysvisor-fs"


class OwnDaemon:
    """The run directory of a daemon that a launch starts."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.run_dir = directory / "run"
        self.mountpoint = directory / "mnt"
        self.mountpoint.mkdir()

    def environment(self) -> dict[str, str]:
        """What leads launches to it."""
        return {"SYSVISOR_FS_RUN_DIR": str(self.run_dir), "SYSVISOR_FS_MOUNTPOINT": str(self.mountpoint)}

    def command(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run `sysvisor-fs` for it."""
        argv = [str(PROGRAM), f"--run-dir={self.run_dir}", f"--mountpoint={self.mountpoint}", *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60)

    def status(self) -> dict[str, Any]:
        """What `status --json` says."""
        done = self.command("status", "--json")
        assert done.returncode == 0, done.stderr
        status: dict[str, Any] = json.loads(done.stdout)
        return status

    def answers(self) -> bool:
        """Whether it is there: one that takes over serves files before it answers questions."""
        return self.command("status", "--json").returncode == 0

    def served(self) -> list[str]:
        """The ids of its containers."""
        return [container["id"] for container in self.status()["containers"]]

    def kill(self) -> None:
        """End the daemon as the worst of faults would; its holder starts another one."""
        os.kill(int((self.run_dir / "lock").read_text()), signal.SIGKILL)

    def stop(self) -> None:
        """End everything."""
        stopped = self.command("stop", "--all")
        assert stopped.returncode == 0, stopped.stderr
