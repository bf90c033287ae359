"""What is too much ends in one clear line, soon, and leaves nothing."""

import json
import subprocess

import pytest

from tests.support.bundle import Bundle
from tests.support.runtime import Runtime


@pytest.mark.parametrize("what", ["large", "deep", "zeros", "wide"])
def test_configurations_without_measure(plain_runtime: Runtime, bundle: Bundle, what: str) -> None:
    """100 MB, a hundred thousand brackets, a sparse gigabyte, a million keys."""
    path = bundle.path / "config.json"
    if what == "large":
        path.write_text(json.dumps(bundle.config | {"padding": "x" * 100_000_000}))
    elif what == "deep":
        path.write_text('{"ociVersion": "1.0.0", "x": ' + "[" * 100_000 + "]" * 100_000 + "}")
    elif what == "zeros":
        with open(path, "wb") as file:
            file.truncate(1 << 30)
    else:
        path.write_text(json.dumps(bundle.config | {"annotations": {str(n): 1 for n in range(1_000_000)}}))
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id(), timeout=60).stderr
    assert len(error) < 2000


def test_mounts_without_end(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Two thousand mounts, the last of which fails: none is left."""
    mount = {"type": "tmpfs", "source": "tmpfs", "options": ["size=4k"]}
    bundle.config["mounts"] += [{"destination": f"/m/{n}", **mount} for n in range(2000)]
    bundle.config["mounts"].append({"destination": "/m/last", "type": "no-such-fs", "source": "none"})
    error = plain_runtime.fails("run", "--bundle", bundle.save().path, plain_runtime.id(), timeout=60).stderr
    assert "no-such-fs" in error and len(error) < 2000


@pytest.mark.parametrize("kind", ["runtime", "plain_runtime"])
def test_a_fork_bomb_stays_in_its_limit(request: pytest.FixtureRequest, bundle: Bundle, kind: str) -> None:
    """A bomb started by exec is held by the container's limit, and delete --force ends it."""
    runtime: Runtime = request.getfixturevalue(kind)
    bundle.linux["resources"] = {"pids": {"limit": 40}}
    name = runtime.id()
    runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    runtime("exec", "--detach", name, "/bin/sh", "-c", "bomb() { bomb | bomb & }; bomb; sleep 1000", check=False)
    assert len(runtime("ps", "--format", "json", name).json) <= 40
    runtime("delete", "--force", name, timeout=60)


def test_executable_memory_files_are_forbidden(plain_runtime: Runtime, bundle: Bundle) -> None:
    """With vm.memfd_noexec=2 in its pid namespace the runtime still runs, from a file that nobody can write."""
    bundle.run("/bin/sleep", "100")
    name = plain_runtime.id()
    create = " ".join(plain_runtime.argv("create", "--bundle", str(bundle.path), name))
    execute = " ".join(plain_runtime.argv("exec", name, "/bin/echo", "it runs"))
    delete = " ".join(plain_runtime.argv("delete", "--force", name))
    start = " ".join(plain_runtime.argv("start", name))
    script = (
        f"echo 2 >/proc/sys/vm/memfd_noexec || exit 77; {create} </dev/null >/dev/null 2>&1;"
        "for p in /proc/[0-9]*; do case $(readlink $p/exe) in"
        " */init*) echo waiting; (: >$p/exe) && echo written;; esac;"
        f"done 2>/dev/null; {start}; {execute} 2>/dev/null; {delete}"
    )
    done = subprocess.run(["unshare", "-mpf", "--mount-proc", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode == 77:
        pytest.skip("no vm.memfd_noexec; to force it: Linux 6.3 or newer")
    assert done.stdout.split("\n") == ["waiting", "it runs", ""]
