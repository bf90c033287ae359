"""CVE-2019-14271: no code of the root file system runs in our processes, whatever it is called and wherever it lies."""

import os
import pathlib
import sysconfig
from collections.abc import Callable

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import SOURCE, Runtime
from tests.support.weakened import Weaken

TRAP = "open('/sprung', 'a').write(__name__ + ' ' + __file__ + '\\n')\n"


def set_traps(rootfs: pathlib.Path, *libraries: pathlib.Path) -> None:
    """Fill a rootfs with modules and libraries where our processes would look for them, were they to look."""
    places = [pathlib.Path(sysconfig.get_path("stdlib")), *libraries]
    for library in places:
        target = rootfs / str(library)[1:]
        for module in library.rglob("*.py"):
            if "test" in module.parts or "dist-packages" in module.parts:
                continue
            trap = target / module.relative_to(library)
            trap.parent.mkdir(parents=True, exist_ok=True)
            trap.write_text(TRAP)
    for name in ("libnss_files.so.2", "libc.so.6", "libgcc_s.so.1", "gconv/gconv-modules", "gconv/UTF-16.so"):
        for directory in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64"):
            trap = rootfs / directory / name
            trap.parent.mkdir(parents=True, exist_ok=True)
            trap.write_bytes(b"\x7fELF and nothing else")
    (rootfs / "etc").mkdir(exist_ok=True)
    (rootfs / "etc/ld.so.preload").write_text("/lib64/libc.so.6\n")
    (rootfs / "etc/nsswitch.conf").write_text("passwd: evil\n")


def demanding(bundle: Bundle) -> Bundle:
    """Ask for as much as possible of what is loaded on demand: copying up, sysctl, hooks, users, devices."""
    (bundle.rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    bundle.config["mounts"].append(
        {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["tmpcopyup"]}
    )
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    bundle.config["hooks"] = {"createContainer": [{"path": "/bin/true"}], "startContainer": [{"path": "/bin/true"}]}
    bundle.process["env"] = ["PATH=/bin"]
    return bundle.save()


@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_traps_are_not_sprung(request: pytest.FixtureRequest, new_bundle: Callable[..., Bundle], kind: str) -> None:
    """run, create, start, exec and exec --user in a rootfs full of traps, also where its own paths are ours."""
    runtime: Runtime = request.getfixturevalue(kind)
    bundle = new_bundle("/bin/sleep", "100")
    set_traps(bundle.rootfs, SOURCE / "sysvisor_runc")
    demanding(bundle)
    name = runtime.id()
    runtime("create", "--bundle", bundle.path, name)
    runtime("start", name)
    runtime("exec", name, "/bin/true")
    runtime("exec", "--user", "root", name, "/bin/true")
    runtime.fails("exec", "--user", "ghost", name, "/bin/true")
    runtime.fails("exec", name, "/no/such/program")
    assert not (bundle.rootfs / "sprung").exists() and not os.path.exists("/sprung")


def joining(bundle: Bundle, pid: int) -> Bundle:
    """Have it join the mount namespace of process `pid`, with something to load on demand."""
    for entry in bundle.linux["namespaces"]:
        if entry["type"] == "mount":
            entry["path"] = f"/proc/{pid}/ns/mnt"
    return demanding(bundle)


def test_nothing_is_loaded_in_a_joined_mount_namespace(
    plain_runtime: Runtime, new_bundle: Callable[..., Bundle]
) -> None:
    """A container that joins the mount namespace of another is made without a look at the other's files."""
    hostile = new_bundle("/bin/sleep", "100")
    set_traps(hostile.rootfs, SOURCE / "sysvisor_runc")
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", hostile.path, name)
    pid = plain_runtime.state(name)["pid"]
    plain_runtime("run", "--bundle", joining(new_bundle(), pid).path, plain_runtime.id(), check=False)
    assert not (hostile.rootfs / "sprung").exists()


def test_it_would_be_if_loaded_late(plain_runtime: Runtime, new_bundle: Callable[..., Bundle], weaken: Weaken) -> None:
    """The same on a copy that imports after joining: the other container's module runs with the host's rights."""
    weak = weaken(
        plain_runtime,
        "launch/firststage.py",
        "        child_main.preload(plan.child)\n        seal_imports()\n",
        "",
    )
    library = weak.program.parents[1] / "sysvisor_runc"
    hostile = new_bundle("/bin/sleep", "100")
    set_traps(hostile.rootfs, library)
    name = weak.id()
    weak("run", "--detach", "--bundle", hostile.path, name)
    pid = weak.state(name)["pid"]
    weak("run", "--bundle", joining(new_bundle(), pid).path, weak.id(), check=False)
    assert "copy.py" in (hostile.rootfs / "sprung").read_text()


def test_the_callers_environment(
    plain_runtime: Runtime, bundle: Bundle, workplace: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PYTHON* variables and a working directory full of modules change nothing, and nothing of them gets inside."""
    traps = workplace / "traps"
    traps.mkdir()
    trap = f"open({str(workplace / 'sprung')!r}, 'a').write(__name__ + '\\n')\n"
    for name in ("json", "os", "_json", "fcntl", "select", "stat", "time", "errno", "encodings", "sitecustomize"):
        (traps / f"{name}.py").write_text(trap)
    (traps / "sysvisor_runc").mkdir()
    (traps / "sysvisor_runc/__init__.py").write_text(trap)
    environment = {
        **os.environ,
        "PYTHONPATH": str(traps),
        "PYTHONHOME": str(traps),
        "PYTHONSTARTUP": str(traps / "json.py"),
        "PYTHONINSPECT": "1",
        "PYTHONUSERBASE": str(traps),
        "PYTHONBREAKPOINT": "json.trap",
        "SECRET": "of-the-caller",
    }
    bundle.run("/usr/bin/env")
    for args in (("run", "--bundle", bundle.path, plain_runtime.id()), ("list",), ("features",), ("--help",)):
        result = plain_runtime(*args, cwd=traps, env=environment)
        assert "of-the-caller" not in result.stdout and "PYTHON" not in result.stdout.replace("PYTHON_", "")
    assert not (workplace / "sprung").exists()
