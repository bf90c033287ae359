"""Programs that people look at a machine with, in a container of 256 MiB and half a CPU: they agree with its limits.

The container has the host's /usr and /etc, read-only, so that what is installed there runs as it is.
"""

import json
import pathlib
import re
import shutil
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle, make_bundle
from tests.support.fs_own import OwnDaemon
from tests.support.runtime import Runtime, wait_until

MIB = 256
KIB = MIB << 10
FIRMLY = 120  # seconds: a JVM on half a CPU

Look = Callable[..., str]


@pytest.fixture(scope="module")
def look(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Look]:
    """Runs a program inside, and gives what it prints."""
    directory = tmp_path_factory.mktemp("programs")
    for parent in (directory, *directory.parents[:2]):
        parent.chmod(0o755)
    daemon = OwnDaemon(directory)
    runtime = Runtime(directory)
    bundle = _of_the_host(make_bundle(directory / "bundle", _skeleton(directory / "template"), ("/bin/sleep", "10000")))
    name = runtime.id()
    with pytest.MonkeyPatch.context() as environment:
        for key, value in daemon.environment().items():
            environment.setenv(key, value)
        runtime("run", "--detach", "--cpuset-from-quota", "--bundle", bundle.path, name)

        def inside(*argv: str) -> str:
            path = shutil.which(argv[0])
            if path is None:
                pytest.skip(f"{argv[0]} is not installed; to force it, install it")
            variables = ("--env", "TERM=xterm", "--env", "LC_ALL=C.UTF-8", "--env", "COLUMNS=120")
            result = runtime("exec", *variables, name, path, *argv[1:], timeout=FIRMLY)
            return result.stdout + result.stderr

        try:
            yield inside
        finally:
            runtime("delete", "--force", name)
            daemon.stop()
            runtime.clean()
    wait_until(lambda: leaks.find(runtime) == [], what="an end of everything")


def _skeleton(path: pathlib.Path) -> pathlib.Path:
    """A root directory without anything of its own in it."""
    for name in ("usr", "etc", "proc", "sys", "dev", "tmp", "root"):
        (path / name).mkdir(parents=True)
    for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32"):
        host = pathlib.Path("/", name)
        if host.is_symlink():
            (path / name).symlink_to(f"usr/{name}")
    return path


def _of_the_host(bundle: Bundle) -> Bundle:
    bundle.config["mounts"] += [
        {"destination": place, "type": "bind", "source": place, "options": ["rbind", "ro"]}
        for place in ("/usr", "/etc")
    ]
    bundle.linux["resources"] = {"memory": {"limit": MIB << 20}, "cpu": {"quota": 50_000, "period": 100_000}}
    return bundle.save()


def _number(pattern: str, text: str) -> float:
    found = re.search(pattern, text)
    assert found, text
    return float(found[1])


def test_free(look: Look) -> None:
    """procps' free: the total is the limit, and what is used and free adds up within it."""
    _, memory, swap = (line.split() for line in look("free", "-k").splitlines())
    total, used, free = map(int, memory[1:4])
    assert total == KIB
    assert 0 < used < total
    assert 0 < free <= total - used
    assert int(swap[1]) <= int(_number(r"SwapTotal: +(\d+)", look("cat", "/proc/meminfo")))


def test_top(look: Look) -> None:
    """top: the container's memory, its few tasks, its uptime, and no load that is the host's."""
    said = look("top", "-b", "-n", "1", "-E", "k")
    assert _number(r"KiB Mem : +([\d.]+) total", said) == KIB
    assert _number(r"Tasks: +(\d+) total", said) < 10
    assert re.search(r"up +(\d+ min|\d+:\d+|0 min)", said), said
    assert len(re.findall(r"^%Cpu", said, re.MULTILINE)) == 1


def test_vmstat(look: Look) -> None:
    """vmstat: memory in kibibytes, and percentages that are some."""
    assert _number(r"(\d+) K total memory", look("vmstat", "-s")) == KIB
    head, values = (line.split() for line in look("vmstat").splitlines()[1:])
    row = dict(zip(head, map(int, values), strict=False))
    assert row["free"] <= KIB
    assert 0 <= row["us"] + row["sy"] + row["id"] + row["wa"] + row["st"] <= 103  # each one is rounded


def test_lscpu(look: Look) -> None:
    """lscpu: one CPU is there, and it is on."""
    told = {one["field"].rstrip(":"): one["data"] for one in json.loads(look("lscpu", "--json"))["lscpu"]}
    assert told["CPU(s)"] == "1"
    assert told["On-line CPU(s) list"] == "0"


def test_nproc_and_uptime(look: Look) -> None:
    """nproc by the narrowed cpuset, uptime by the container's clock."""
    assert look("nproc").split() == ["1"]
    assert re.search(r"up +(\d+ min|\d+:\d+)", look("uptime"))


def test_node(look: Look) -> None:
    """Node.js: os.cpus() and os.totalmem()."""
    script = "const os = require('os'); console.log(JSON.stringify([os.cpus().length, os.totalmem(), os.uptime()]))"
    cpus, total, up = json.loads(look("node", "-e", script))
    assert (cpus, total) == (1, MIB << 20)
    assert 0 < up < 1000


def test_java(look: Look) -> None:
    """A JVM: its processors and its memory, which it reads from the cgroup itself, are the same."""
    said = look("java", "-XshowSettings:system", "-version")
    assert _number(r"Effective CPU Count: (\d+)", said) == 1
    assert _number(r"Memory Limit: ([\d.]+)M", said) == MIB


def test_htop(look: Look) -> None:
    """htop on a terminal: one CPU meter, the memory meter's total, the uptime. It is told to quit until it does."""
    look("htop", "--version")
    shown = "(while sleep 1; do printf q; done) | script -qec 'stty rows 40 cols 120; exec htop -C' /dev/null"
    plain = re.sub(r"\x1b(\[[\d;?]*[A-Za-z]|\(B)", " ", look("bash", "-c", shown))
    assert re.search(rf"Mem *\[.*/{MIB}M", plain), plain
    assert re.search(r"\bCPU *\[", plain), plain  # several have numbers
    assert re.search(r"Uptime: +00:\d\d:\d\d", plain), plain
