"""Hooks: all six kinds, when and where they run, what they are given, and what their failure means."""

import json
import os
import pathlib
import time
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import namespace, user_namespace
from tests.support.runtime import Runtime

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
STATUS = {"prestart": "creating", "createRuntime": "creating", "createContainer": "creating",
          "startContainer": "created", "poststart": "running", "poststop": "stopped"}  # fmt: skip


class Hooks:
    """Hooks of a bundle that write what they see into its log directory, which the container has as /log."""

    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self.log = bundle.path / "log"
        self.log.mkdir()
        (bundle.rootfs / "log").mkdir()
        self.config: dict[str, Any] = bundle.config.setdefault("hooks", {})
        bundle.config["mounts"].append({"destination": "/log", "source": str(self.log), "options": ["bind"]})

    def add(self, kind: str, script: str, **fields: object) -> None:
        """A shell script as a hook; `$L` is the log directory as the hook sees it."""
        place = "/log" if kind == "startContainer" else str(self.log)
        entry = {"path": "/bin/sh", "args": ["sh", "-c", f"L={place}\n{script}"], **fields}
        self.config.setdefault(kind, []).append(entry)

    def read(self, name: str) -> str:
        return (self.log / name).read_text().strip()


@pytest.fixture
def hooks(bundle: Bundle) -> Hooks:
    return Hooks(bundle)


def test_all_six_in_their_moments(plain_runtime: Runtime, bundle: Bundle, hooks: Hooks) -> None:
    """In order, two of each kind; with the state on stdin, and the status that it has then."""
    bundle.config["annotations"] = {"some.key": "some value"}
    for kind in KINDS:
        hooks.add(kind, f"cat >$L/{kind}.json; echo {kind}-1 >>$L/order")
        hooks.add(kind, f"echo {kind}-2 >>$L/order")
    bundle.sh("echo program >>/log/order; sleep 1000")
    name = plain_runtime.id()
    plain_runtime("create", "--bundle", bundle.path, name)
    pid = plain_runtime.state(name)["pid"]
    created = hooks.read("order").split()
    assert created == [f"{kind}-{n}" for kind in KINDS[:3] for n in (1, 2)]
    plain_runtime("start", name)
    assert set(hooks.read("order").split()[6:]) >= {f"{kind}-{n}" for kind in KINDS[3:5] for n in (1, 2)}
    plain_runtime("kill", name, "KILL")
    plain_runtime.wait_status(name, "stopped")
    plain_runtime("delete", name)
    order = hooks.read("order").split()
    assert order[-2:] == ["poststop-1", "poststop-2"]
    assert order.index("startContainer-2") < order.index("program")
    for kind in KINDS:
        state = json.loads(hooks.read(f"{kind}.json"))
        expected_pid = {"createContainer": 1, "startContainer": 1, "poststop": 0}.get(kind, pid)
        assert state.get("pid", 0) == expected_pid, kind
        assert (state["id"], state["status"], state["bundle"]) == (name, STATUS[kind], str(bundle.path)), kind
        assert state["annotations"] == {"some.key": "some value"}
        assert state["ociVersion"] == bundle.config["ociVersion"]


def test_where_each_runs(plain_runtime: Runtime, bundle: Bundle, hooks: Hooks) -> None:
    """The runtime's namespaces for four kinds; the container's, but before the root changes, for createContainer."""
    user_namespace(bundle)
    hooks.log.chmod(0o777)
    see = "for n in net mnt uts user; do readlink /proc/self/ns/$n; done"
    for kind in KINDS:
        hooks.add(kind, f"{see} >$L/{kind} 2>&1; ls -A / >$L/{kind}.ls")
    bundle.sh(f"{see} >/log/program")
    plain_runtime("run", "--bundle", bundle.path, plain_runtime.id())
    host = [namespace("self", kind) for kind in ("net", "mnt", "uts", "user")]
    inside = hooks.read("program").split()
    assert not set(host) & set(inside)
    for kind in ("prestart", "createRuntime", "poststart", "poststop"):
        assert hooks.read(kind).split() == host, kind
    for kind in ("createContainer", "startContainer"):
        assert hooks.read(kind).split() == inside, kind
    root = sorted(os.listdir("/"))
    assert sorted(hooks.read("startContainer.ls").split()) == sorted(os.listdir(bundle.rootfs))
    assert sorted(hooks.read("prestart.ls").split()) == root


def test_the_mounts_stand_when_create_container_runs(plain_runtime: Runtime, bundle: Bundle, hooks: Hooks) -> None:
    """It may look at and change what the container will see: here it adds a file to a tmpfs of the container's."""
    hooks.add("createContainer", "test -d /proc/1 && cat /proc/mounts >$L/mounts")
    bundle.sh("true")
    plain_runtime("run", "--bundle", bundle.path, plain_runtime.id())
    assert "/dev/pts devpts" in hooks.read("mounts")


def test_argv_and_environment(plain_runtime: Runtime, bundle: Bundle, hooks: Hooks) -> None:
    """args[0] is the hook's business; env replaces the environment, without it the caller's is passed on.

    Inside the container it is the process's.
    """
    script = hooks.log / "script"
    script.write_text('#!/bin/sh\necho "$0 $*" >$OUT\nenv >>$OUT\n')
    script.chmod(0o755)
    out = str(hooks.log / "out")
    hooks.config["prestart"] = [{"path": str(script), "args": ["other", "a b", ""], "env": [f"OUT={out}", "K=v=w"]}]
    hooks.add("createRuntime", "env >$L/runtime")
    hooks.add("startContainer", "env >$L/inside")
    bundle.process["env"] = ["PATH=/bin", "ONE=two"]
    bundle.sh("env >/log/program")
    plain_runtime("run", "--bundle", bundle.path, plain_runtime.id(), env={**os.environ, "CALLERS": "own"})
    first, *rest = hooks.read("out").splitlines()
    assert first.split(" ", 1)[1] == "a b "  # two arguments, the second empty
    assert "K=v=w" in rest and not any(line.startswith("CALLERS") for line in rest)
    assert "CALLERS=own" in hooks.read("runtime")
    assert "ONE=two" in hooks.read("inside") and "CALLERS" not in hooks.read("inside")


@pytest.mark.parametrize("kind", KINDS[:4])
def test_a_failure_before_start_ends_the_container(
    plain_runtime: Runtime, bundle: Bundle, hooks: Hooks, kind: str
) -> None:
    """The error has the kind, the number, the exit code and what the hook said; nothing runs, nothing is left."""
    hooks.add(kind, "true")
    hooks.add(kind, "echo some words; echo others >&2; exit 7")
    hooks.add(kind, "touch $L/third")
    bundle.sh("touch /log/program")
    name = plain_runtime.id()
    if kind == "startContainer":
        # Of a created container it is `start` that tells.
        plain_runtime("create", "--bundle", bundle.path, name)
        error = plain_runtime.fails("start", name).stderr
        assert f"{kind} hook #1" in error and "some words" in error
        assert plain_runtime.state(name)["status"] == "stopped"
        plain_runtime("delete", name)
    error = plain_runtime.fails("run", "--bundle", bundle.path, name).stderr
    assert f"{kind} hook #1" in error and "7" in error and "some words" in error and "others" in error
    assert not (hooks.log / "third").exists() and not (hooks.log / "program").exists()
    assert name not in plain_runtime.ids()


def test_a_failure_afterwards_is_a_warning(plain_runtime: Runtime, bundle: Bundle, hooks: Hooks) -> None:
    """poststop: the others still run, and the command succeeds."""
    hooks.add("poststop", "exit 3")
    hooks.add("poststop", "touch $L/second")
    bundle.sh("true")
    result = plain_runtime("run", "--bundle", bundle.path, plain_runtime.id())
    assert "poststop hook #0" in result.stderr
    assert (hooks.log / "second").exists()


@pytest.mark.parametrize("verb", ["run", "start"])
def test_a_failed_poststart_hook_stops_the_container(
    plain_runtime: Runtime, bundle: Bundle, hooks: Hooks, verb: str
) -> None:
    """runtime.md, "Lifecycle": the command fails, the program ends, the poststop hooks run."""
    hooks.add("poststart", "exit 3")
    hooks.add("poststop", "touch $L/stopped")
    bundle.sh("exec sleep 1000")
    name = plain_runtime.id()
    if verb == "start":
        plain_runtime("create", "--bundle", bundle.path, name)
        assert "poststart hook #0" in plain_runtime.fails("start", name).stderr
        plain_runtime("delete", name)
    else:
        assert "poststart hook #0" in plain_runtime.fails("run", "--bundle", bundle.path, name).stderr
    assert (hooks.log / "stopped").exists() and name not in plain_runtime.ids()


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_timeout(plain_runtime: Runtime, bundle: Bundle, hooks: Hooks, kind: str) -> None:
    """A hook that overruns is killed and told, long before it would have ended."""
    hooks.add(kind, "exec sleep 1000", timeout=1)
    bundle.sh("true")
    begun = time.monotonic()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "past specified timeout of 1s" in error
    assert time.monotonic() - begun < 20


def test_hooks_that_are_odd(plain_runtime: Runtime, bundle: Bundle, hooks: Hooks) -> None:
    """One that does not read its stdin, one with endless output, one that leaves a child with its pipes open."""
    hooks.add("createRuntime", "exec <&-; exit 0")
    hooks.add("createRuntime", "head -c 3000000 /dev/zero; head -c 3000000 /dev/zero >&2")
    hooks.add("createRuntime", "sleep 5 & exit 0")
    bundle.config["annotations"] = {"large": "x" * 300_000}
    bundle.sh("touch /log/program")
    plain_runtime("run", "--bundle", bundle.path, plain_runtime.id())
    assert (hooks.log / "program").exists()


@pytest.mark.parametrize(
    ("path", "words"), [("relative", "absolute"), ("/not/there", "no such file"), ("/etc/passwd", "ermission denied")]
)
def test_what_is_no_hook(plain_runtime: Runtime, bundle: Bundle, path: str, words: str) -> None:
    """Told by kind, index and path."""
    bundle.config["hooks"] = {"prestart": [{"path": path}]}
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "prestart" in error and words in error.lower()


def test_a_hook_may_leave_a_network_device(plain_runtime: Runtime, bundle: Bundle, hooks: Hooks) -> None:
    """What clients use them for: the pid in the state leads to the container's network namespace."""
    hooks.add(
        "createRuntime",
        """pid=$(sed 's/.*"pid": *\\([0-9]*\\).*/\\1/'); nsenter --net=/proc/$pid/ns/net ip link >$L/links""",
    )
    bundle.sh("true")
    plain_runtime("run", "--bundle", bundle.path, plain_runtime.id())
    assert "lo" in hooks.read("links") and "eth0" not in hooks.read("links")
    assert pathlib.Path("/sys/class/net/lo").exists()
