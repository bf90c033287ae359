"""Pods as a kubelet makes them: sandboxes and containers of a private engine, asked for through its CRI."""

import base64
import json
import pathlib
import subprocess
import sys
from typing import Any

from tests.support.clients import Client
from tests.support.containerd import IMAGE

CLIENT = pathlib.Path(__file__).with_name("cri_client.py")
SERVE = "trap 'exit 3' TERM; while :; do sleep 0.2; done"


class Refused(Exception):
    """What the engine says against a request."""


class Cri:
    """The engine's CRI: `cri("RunPodSandbox", config={…})` gives the answer as a dictionary. Ends with its context."""

    def __init__(self, client: Client) -> None:
        self.client = client
        argv = [sys.executable, str(CLIENT), f"{client.directory}/engine.sock"]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self, method: str, **fields: object) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps([method, fields]) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client has ended at {method}"
        found = json.loads(line)
        if "error" in found:
            raise Refused(found["error"])
        return found["answer"]

    def __enter__(self) -> "Cri":
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()


class Pod:
    """A sandbox of one runtime handler, which is stopped and removed at the end of its context."""

    def __init__(self, cri: Cri, handler: str, **security: object) -> None:
        self.cri = cri
        self.name = cri.client.name()
        self.logs = cri.client.directory / "logs" / self.name
        self.options = {"pid": "CONTAINER"} | security
        self.config = {
            "metadata": {"name": self.name, "uid": self.name, "namespace": "default"},
            "hostname": "" if self.options.get("network") == "NODE" else "pod1",
            "log_directory": str(self.logs),
            "linux": {
                "cgroup_parent": f"/{cri.client.token}",
                "security_context": {"namespace_options": self.options},
            },
        }
        self.id = cri("RunPodSandbox", config=self.config, runtime_handler=handler)["pod_sandbox_id"]

    def __enter__(self) -> "Pod":
        return self

    def __exit__(self, *_: object) -> None:
        self.cri("StopPodSandbox", pod_sandbox_id=self.id)
        self.cri("RemovePodSandbox", pod_sandbox_id=self.id)

    def create(self, name: str, sh: str = SERVE, **config: Any) -> str:
        """A container of the pod that runs a shell script; `config`: `security`, `resources`, or fields of its own."""
        security = {"namespace_options": self.options} | config.pop("security", {})
        given = {
            "metadata": {"name": name},
            "image": {"image": IMAGE, "user_specified_image": IMAGE},
            "command": ["sh", "-c", sh],
            "log_path": f"{name}.log",
            "linux": {"security_context": security, "resources": config.pop("resources", {})},
        }
        request = {"config": given | config, "sandbox_config": self.config}
        answer = self.cri("CreateContainer", pod_sandbox_id=self.id, **request)
        return str(answer["container_id"])

    def start(self, name: str, sh: str = SERVE, **config: Any) -> str:
        """… which is started; its id."""
        container = self.create(name, sh, **config)
        self.cri("StartContainer", container_id=container)
        return container

    def exec(self, container: str, sh: str) -> tuple[int, str]:
        """Run a shell script in a container: exit code and output."""
        done = self.cri("ExecSync", container_id=container, cmd=["sh", "-c", sh], timeout=30)
        return done.get("exit_code", 0), base64.b64decode(done.get("stdout", "")).decode()

    def status(self, container: str) -> Any:
        return self.cri("ContainerStatus", container_id=container)["status"]

    def log(self, name: str) -> list[str]:
        """The lines that a container has written, without time, stream and tag."""
        path = self.logs / f"{name}.log"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line.split(" ", 3)[3] for line in lines]
