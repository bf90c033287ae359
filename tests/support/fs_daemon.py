"""A sysvisor-fs of a test's own: started, asked, killed, and removed with everything that it set up."""

import array
import json
import os
import pathlib
import signal
import socket
import subprocess
import time
from typing import Any

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = SOURCE / "bin/sysvisor-fs"
PATIENCE = 60.0


class FsDaemon:
    """`sysvisor-fs` serving the tree of tests.support.fs_tree, or another one."""

    def __init__(self, directory: pathlib.Path, tree: str = "tests.support.fs_tree", **environment: str) -> None:
        self.run_dir = directory / "run"
        self.mountpoint = directory / "mnt"
        self.options = [f"--run-dir={self.run_dir}", f"--mountpoint={self.mountpoint}", f"--tree={tree}"]
        self.environment = {**os.environ, **environment}
        self.environment.pop("NOTIFY_SOCKET", None)
        self._started: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """In the background; returns when it answers."""
        self.run_dir.mkdir(mode=0o700, exist_ok=True)
        process = self.command()
        self._started.append(process)
        deadline = time.monotonic() + PATIENCE
        while self.pid() != process.pid or not self.answers():
            assert process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def command(self, *words: str) -> subprocess.Popen[bytes]:
        """The program with more words, its messages in the log."""
        with (self.directory_log()).open("ab") as log:
            return subprocess.Popen(
                [str(PROGRAM), *self.options, *words], env=self.environment, stdout=log, stderr=log,
                stdin=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip

    def directory_log(self) -> pathlib.Path:
        """Where it says things."""
        return self.run_dir.parent / "log"

    def log(self) -> str:
        """What daemons and holder have said."""
        texts = [self.directory_log(), self.run_dir / "sysvisor-fs.log"]
        return "".join(path.read_text() for path in texts if path.exists())

    def pid(self) -> int:
        """The daemon that serves; 0 for none."""
        text = (self.run_dir / "lock").read_text().strip() if (self.run_dir / "lock").exists() else ""
        return int(text or "0")

    def answers(self) -> bool:
        """Whether the control socket does."""
        try:
            return "ok" in self.ask(op="mountpoint")[0]
        except OSError:
            return False

    def ask(self, **request: Any) -> tuple[dict[str, Any], list[int]]:
        """One request over the control socket: its answer, and the descriptors that came with it."""
        with self.connect() as sock:
            sock.send(json.dumps(request).encode())
            data, ancillary, _, _ = sock.recvmsg(1 << 20, socket.CMSG_SPACE(253 * 4))
        if not data:
            raise ConnectionResetError("hung up")
        fds = array.array("i")
        for _, _, content in ancillary:
            fds.frombytes(content)
        return json.loads(data), list(fds)

    def trees(self, container: str, *paths: str) -> list[int]:
        """Detached clones of paths."""
        answer, fds = self.ask(op="trees", id=container, paths=list(paths))
        assert answer.get("ok"), answer
        return fds

    def status(self) -> dict[str, Any]:
        """What it says of itself."""
        found: dict[str, Any] = self.ask(op="status")[0]["status"]
        return found

    def connect(self) -> socket.socket:
        """A connection to the control socket."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(PATIENCE)
        try:
            sock.connect(str(self.run_dir / "control.sock"))
        except OSError:
            sock.close()
            raise
        return sock

    def call(self, *requests: dict[str, Any]) -> None:
        """Calls, one after the other, all of which have to succeed."""
        for request in requests:
            answer, _ = self.ask(**request)
            assert answer.get("ok"), answer

    def register(self, *ids: str, pid: int = 0, first: int = 100000) -> None:
        """Register containers whose init is this process or `pid`; each has ids of its own, from `first` on."""
        self.call(*(
            {"op": "register", "id": name, "initPid": pid or os.getpid(),
             "uid": [first + number * 65536, 65536], "gid": [first + number * 65536, 65536]}
            for number, name in enumerate(ids)
        ))  # fmt: skip

    def unregister(self, *ids: str) -> None:
        """Have containers forgotten."""
        self.call(*({"op": "unregister", "id": name} for name in ids))

    def kill(self) -> int:
        """SIGKILL the daemon, if there is one; its pid."""
        pid = self.pid()
        if pid:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                return 0
        return pid

    def wait_for_another(self, than: int) -> None:
        """Until another daemon answers."""
        deadline = time.monotonic() + PATIENCE
        while self.pid() == than or not self.answers():
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.02)

    def stop(self, *words: str) -> None:
        """`sysvisor-fs stop`."""
        done = self.command("stop", *words)
        assert done.wait(PATIENCE) == 0, self.log()
        while self._started:
            self._started.pop().wait(PATIENCE)

    def end(self) -> None:
        """`sysvisor-fs stop --all`, after which nothing of it is left."""
        self.stop("--all")
        deadline = time.monotonic() + PATIENCE
        while left := self.holders():
            assert time.monotonic() < deadline, f"{left} {self.log()}"
            time.sleep(0.02)

    def holders(self) -> list[int]:
        """Processes of ours that are left."""
        found = []
        for entry in pathlib.Path("/proc").iterdir():
            try:
                text = (entry / "cmdline").read_bytes() if entry.name.isdigit() else b""
            except OSError:
                continue
            if str(self.run_dir).encode() in text and b"sysvisor-fs" in text:
                found.append(int(entry.name))
        return found
