"""contrib/kubernetes says what the program does, in what Kubernetes can read."""

import ast
import pathlib
import re
import runpy
import tomllib
from typing import Any

import pytest
import yaml

from sysvisor_runc.cli.engines import ENGINES, NAME
from tests.support import source

FOLDER = source.ROOT / "contrib/kubernetes"
PROGRAM = "/usr/local/sbin/sysvisor-runc"
INSTALLER = (FOLDER / "node_installer.py").read_text()


def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((FOLDER / name).read_text()))


def daemon_set(name: str) -> dict[str, Any]:
    (found,) = (each for each in documents(name) if each["kind"] == "DaemonSet")
    return found


def constant(name: str) -> object:
    """A constant of the installer's."""
    (found,) = re.findall(rf"^{name} = (.*)$", INSTALLER, re.MULTILINE)
    return ast.literal_eval(found)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.name)
def test_every_object_is_complete(path: pathlib.Path) -> None:
    """Each has what the API server asks of all of them, and names that it allows."""
    for each in documents(path.name):
        assert set(each) - {"spec", "rules", "roleRef", "subjects", "handler", "scheduling", "overhead"} == {
            "apiVersion", "kind", "metadata",
        }  # fmt: skip
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?", each["metadata"]["name"])


def test_the_class_leads_to_the_handler() -> None:
    """The handler is the one that `install` writes, the nodes those that the installer has labelled."""
    (runtime_class,) = documents("runtimeclass.yaml")
    assert (runtime_class["apiVersion"], runtime_class["kind"]) == ("node.k8s.io/v1", "RuntimeClass")
    assert runtime_class["handler"] == NAME
    assert runtime_class["scheduling"]["nodeSelector"] == {constant("LABEL"): "true"}


@pytest.mark.parametrize("name", ["installer.yaml", "uninstaller.yaml"])
def test_daemon_sets(name: str) -> None:
    """The selector finds the pods, the pod may enter the node, and every variable is one that the installer reads."""
    spec = daemon_set(name)["spec"]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert spec["template"]["metadata"]["labels"] == spec["selector"]["matchLabels"]
    assert pod["hostPID"] is True
    assert container["securityContext"] == {"privileged": True}
    assert container["args"] == [name.removesuffix("er.yaml"), "--stay"]
    read = set(re.findall(r'environ\.get\("(\w+)"', INSTALLER))
    assert {variable["name"] for variable in container["env"]} <= read
    accounts = {each["metadata"]["name"] for each in documents("installer.yaml") if each["kind"] == "ServiceAccount"}
    assert pod["serviceAccountName"] in accounts


def test_the_account_may_label_nodes_and_nothing_else() -> None:
    """Whoever takes the installer over gets no further right from the API server."""
    roles = [each for each in documents("installer.yaml") if each["kind"] == "ClusterRole"]
    assert [role["rules"] for role in roles] == [[{"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]}]]


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({}, "https://kubernetes.default.svc"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://10.96.0.1:6443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1"}, "https://[fd00::1]:443"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "API_SERVER": "http://127.0.0.1:1"}, "http://127.0.0.1:1"),
    ],
)
def test_the_api_server_is_found_without_dns(
    environment: dict[str, str], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The installer goes to the address that Kubernetes tells every pod, unless told another one."""
    for name in ("KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT", "API_SERVER"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert runpy.run_path(str(FOLDER / "node_installer.py"))["api_server"]() == url


@pytest.mark.parametrize(
    ("name", "engine", "given"),
    [
        ("containerd-1.toml", "containerd", "version = 2\n"),
        ("containerd-2.toml", "containerd", "version = 3\n"),
        ("crio.conf", "crio", ""),
    ],
)
def test_handlers_are_what_install_writes(name: str, engine: str, given: str) -> None:
    """The files for those who keep an engine's configuration by other means say the same."""
    written = tomllib.loads(ENGINES[engine].edit(given, PROGRAM, False, False))
    shown = tomllib.loads((FOLDER / name).read_text())
    if engine == "containerd":
        for config in (written, shown):
            (plugin,) = config["plugins"].values()
            plugin["containerd"]["runtimes"].pop("runc", None)
    assert shown == written


def test_what_is_copied_is_what_make_installs() -> None:
    """The installer's list of files are those of the Makefile, and of the units that belong to it."""
    files = re.search(r"^FILES = \((.*)\)$", INSTALLER, re.MULTILINE)
    assert files is not None
    assert re.findall(r'/(sysvisor-[a-z]+)"', files[1]) == ["sysvisor-runc", "sysvisor-fs"]
    assert (source.ROOT / "contrib/systemd" / str(constant("SERVICE"))).is_file()
    assert f"COPY {'contrib/kubernetes/node_installer.py'} " in (FOLDER / "Dockerfile").read_text()
