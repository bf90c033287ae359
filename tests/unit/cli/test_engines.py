"""What `install` makes of the configuration files of container engines."""

import json
import tomllib

import pytest

from sysvisor_runc.cli.engines import ENGINES
from sysvisor_runc.errors import SysvisorError

PATH = "/usr/local/sbin/sysvisor-runc"
CONTAINERD = """# mine
version = 2
[plugins]
  [plugins."io.containerd.grpc.v1.cri"]
    sandbox_image = "pause"
"""
FILES = {
    "docker": ["", "{}", '{"log-level": "info"}', '{"runtimes": {"x": {"path": "/x"}}, "default-runtime": "x"}'],
    "containerd": ["", CONTAINERD, 'version = 3\n[plugins."io.containerd.cri.v1.runtime"]\n'],
    "podman": [""],
    "crio": [""],
}
CASES = [(engine, text) for engine, texts in FILES.items() for text in texts]


@pytest.mark.parametrize(("engine", "text"), CASES)
def test_there_and_back(engine: str, text: str) -> None:
    """Told once or twice it is the same; taken back, the configuration means what it did."""
    edit, read = ENGINES[engine].edit, json.loads if engine == "docker" else tomllib.loads
    told = edit(text, PATH, False, False)
    assert PATH in told
    assert edit(told, PATH, False, False) == told
    back = edit(told, PATH, False, True)
    assert read(back or ("{}" if engine == "docker" else "")) == read(text or ("{}" if engine == "docker" else ""))
    assert edit(back, PATH, False, True) == back
    assert edit(text, PATH, False, True) == text


@pytest.mark.parametrize("engine", ENGINES)
def test_as_the_default(engine: str) -> None:
    """With --default it is what containers get that name no runtime."""
    text = ENGINES[engine].edit("", PATH, True, False)
    config = json.loads(text) if engine == "docker" else tomllib.loads(text)
    found = {
        "docker": lambda: config["default-runtime"],
        "containerd": lambda: config["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["default_runtime_name"],
        "podman": lambda: config["engine"]["runtime"],
        "crio": lambda: config["crio"]["runtime"]["default_runtime"],
    }[engine]()
    assert found == "sysvisor-runc"
    back = ENGINES[engine].edit(text, PATH, False, True)
    assert back == ""


def test_docker_keeps_the_rest() -> None:
    """Other runtimes, the order of keys, and arguments that somebody has given ours."""
    ours = '{"path": "/old", "runtimeArgs": ["--debug"]}'
    text = f'{{"b": 1, "runtimes": {{"x": {{"path": "/x"}}, "sysvisor-runc": {ours}}}, "a": "ü"}}'
    told = json.loads(ENGINES["docker"].edit(text, PATH, False, False))
    assert list(told) == ["b", "runtimes", "a"]
    assert told["runtimes"] == {"x": {"path": "/x"}, "sysvisor-runc": {"path": PATH, "runtimeArgs": ["--debug"]}}
    assert "ü" in ENGINES["docker"].edit(text, PATH, False, False)


def test_containerd_keeps_comments() -> None:
    """The file's own text is not touched: ours is a block at its end."""
    told = ENGINES["containerd"].edit(CONTAINERD, PATH, False, False)
    assert told.startswith(CONTAINERD)
    runtimes = tomllib.loads(told)["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert runtimes["sysvisor-runc"]["options"]["BinaryName"] == PATH
    assert ENGINES["containerd"].edit(told, PATH, False, True) == CONTAINERD


RUNTIME = """version = 2
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "{0}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.{0}.options]
  SystemdCgroup = {1}
"""


@pytest.mark.parametrize(
    ("text", "known", "systemd"),
    [
        ("", ["sysvisor-runc", "runc"], None),
        (CONTAINERD, ["sysvisor-runc", "runc"], None),
        (RUNTIME.format("runc", "false"), ["runc", "sysvisor-runc"], None),
        (RUNTIME.format("runc", "true"), ["runc", "sysvisor-runc"], True),
        (RUNTIME.format("nvidia", "true"), ["nvidia", "sysvisor-runc"], True),
    ],
)
def test_containerd_keeps_its_default(text: str, known: list[str], systemd: object) -> None:
    """The default runtime stays there, named by us where only containerd's built-in table did, and with it the driver
    of cgroups, which is the same for all of a node."""
    told = tomllib.loads(ENGINES["containerd"].edit(text, PATH, False, False))
    runtimes = told["plugins"]["io.containerd.grpc.v1.cri"]["containerd"]["runtimes"]
    assert list(runtimes) == known
    assert runtimes["sysvisor-runc"]["options"].get("SystemdCgroup") is systemd


@pytest.mark.parametrize(
    ("engine", "text", "default", "problem"),
    [
        ("docker", "{", False, "not JSON"),
        ("docker", "[]", False, "not a configuration of Docker"),
        ("docker", '{"runtimes": []}', False, "not a configuration of Docker"),
        ("containerd", "x =", False, "not TOML"),
        ("containerd", "[plugins]\n", False, "its format is 1"),
        ("containerd", "version = 2\nplugins = {}\n", False, "cannot add to it"),
        ("containerd", f'{CONTAINERD}[plugins."io.containerd.grpc.v1.cri".containerd]\n', True, "cannot add to it"),
        ("containerd", "# BEGIN sysvisor-runc: `sysvisor-runc install --uninstall` removes what follows\n",
         False, "no '# END sysvisor-runc'"),
        ("podman", "[engine]\n", False, "not a file that"),
        ("crio", "[crio]\n", False, "not a file that"),
    ],
)  # fmt: skip
def test_what_it_does_not_touch(engine: str, text: str, default: bool, problem: str) -> None:
    """A file that cannot be understood, or that is not ours to replace, is an error."""
    with pytest.raises(SysvisorError, match=problem):
        ENGINES[engine].edit(text, PATH, default, False)
