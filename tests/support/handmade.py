"""A container without a launch: a record written by hand, a real process for init, real cgroups.

For the verbs that only look at a container or act on its processes, and for states that a launch never leaves behind.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator

from sysvisor_runc.cgroup.layout import detect
from sysvisor_runc.cgroup.manager import Manager
from sysvisor_runc.cgroup.paths import container_paths
from sysvisor_runc.state.process import handle_of, start_time
from sysvisor_runc.state.record import new_record
from sysvisor_runc.state.store import Entry, Store
from tests.support.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec
    from sysvisor_runc.state.record import Record


class Handmade:
    """A container of `runtime` whose init is a `sleep` that this process is the parent of.

    Attributes: `id`, its `entry`, the `record` as last saved, `init` (the process), `manager` (its cgroups).
    """

    def __init__(self, runtime: Runtime, entry: Entry, record: Record, manager: Manager) -> None:
        self.id = entry.id
        self.runtime = runtime
        self.entry = entry
        self.record = record
        self.manager = manager
        self.spawned: list[subprocess.Popen[bytes]] = []
        self.init = self.spawn()

    def spawn(self, *args: str) -> subprocess.Popen[bytes]:
        """One more process in the container's cgroups."""
        process = subprocess.Popen(args or ("/bin/sleep", "1000"), stdin=subprocess.DEVNULL)
        self.spawned.append(process)
        for path in self.manager.directories():
            with open(f"{path}/cgroup.procs", "w") as file:
                file.write(str(process.pid))
        return process

    def save(self, **fields: object) -> None:
        """Change fields of the record and write it."""
        self.record.update(fields)  # type: ignore[typeddict-item]
        self.entry.save(self.record)

    def adopt(self, process: subprocess.Popen[bytes], status: str = "running") -> None:
        """Record `process` as the init."""
        pidfd = os.pidfd_open(process.pid)
        self.save(initPid=process.pid, initStart=start_time(process.pid), initHandle=handle_of(pidfd), status=status)
        os.close(pidfd)

    def end_init(self) -> None:
        """Kill init and reap it."""
        self.init.kill()
        self.init.wait(10)


@contextlib.contextmanager
def container(runtime: Runtime, spec: dict[str, object] | None = None) -> Iterator[Handmade]:
    """A running container; it is gone afterwards with its cgroups and processes, whatever became of it."""
    name = runtime.id()
    layout = detect()
    manager = Manager(container_paths(layout, f"/{runtime.token}/{name}", name))
    made = manager.create(layout)
    full: Spec = {
        "ociVersion": "1.3.0",
        "root": {"path": "rootfs"},
        "process": {"cwd": "/", "args": ["/bin/sleep"], "user": {"uid": 0, "gid": 0}},
    }
    full.update(spec or {"linux": {"namespaces": [{"type": "pid"}]}})  # type: ignore[typeddict-item]
    bundle = str(runtime.directory)
    record = new_record(name, bundle=bundle, rootfs=f"{bundle}/rootfs", spec=full, flags={}, syscont=False)
    record["cgroup"] = {"driver": "cgroupfs", "paths": manager.paths, "leaf": ""}
    entry = Store(str(runtime.root)).create(name)
    entry.unlock()
    made_by_hand = Handmade(runtime, entry, record, manager)
    made_by_hand.adopt(made_by_hand.init)
    try:
        yield made_by_hand
    finally:
        manager.kill_all(signal.SIGKILL)
        for process in made_by_hand.spawned:
            process.kill()
            process.wait(10)
        manager.remove()
        for path in reversed(made):
            with contextlib.suppress(OSError):
                os.rmdir(path)
        entry.remove()
