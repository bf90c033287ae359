"""Whatever is wrong with what the runtime is given: one line that says what and where, the right code, nothing left."""

import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle
from tests.support.runtime import Result, Runtime

Change = Callable[[Bundle], object]


def check_refused(result: Result, words: str, code: int = 1) -> None:
    """One readable line that matches `words`, a regular expression."""
    assert result.returncode == code, repr(result)
    lines = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert len(lines) == 1, repr(result)
    assert re.search(words, lines[0]), repr(result)
    for bad in ("Traceback", "internal error", "unexpected failure", "Errno"):
        assert bad not in lines[0], repr(result)
    assert not lines[0].endswith("."), repr(result)
    assert len(lines[0]) < 1000, repr(result)


def refuse(runtime: Runtime, bundle: pathlib.Path, words: str, *flags: str) -> None:
    """Neither `run` nor `create` accepts the bundle, and nothing is left."""
    for command in ("run", "create"):
        result = runtime(command, *flags, "--bundle", bundle, runtime.id(), check=False)
        check_refused(result, words)
        assert leaks.find(runtime) == []


# ---- the text of config.json

TEXTS = {
    "empty": ("", "config.json is empty"),
    "blank": (" \n\n", "config.json is empty"),
    "truncated": ('{"ociVersion": "1.3.0", "process": {"args": [', "not valid JSON: line 1, column"),
    "no json": ("<xml/>", "not valid JSON: line 1, column 1"),
    "trailing": ('{"ociVersion": "1.3.0"} x', "not valid JSON"),
    "array": ("[]", "expected|must be|object"),
    "null": ("null", "expected|must be|object"),
    "binary": ("\x00\x01\x02", "not valid JSON"),
    "deep": ("[" * 200_000, "nested too deeply"),
    "deep objects": ('{"a":' * 200_000, "nested too deeply"),
    "digits": ('{"ociVersion": ' + "1" * 10_000 + "}", "number too long"),
    "nan": ('{"ociVersion": NaN}', "NaN is not a JSON value"),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text_that_is_no_configuration(runtime: Runtime, bundle: Bundle, name: str) -> None:
    """The place is told where there is one."""
    text, words = TEXTS[name]
    (bundle.path / "config.json").write_text(text)
    refuse(runtime, bundle.path, words)


def test_invalid_utf8(runtime: Runtime, bundle: Bundle) -> None:
    """With the byte."""
    (bundle.path / "config.json").write_bytes(b'{"ociVersion": "\xff"}')
    refuse(runtime, bundle.path, "invalid UTF-8: byte 0xff")


def test_huge_text(runtime: Runtime, bundle: Bundle) -> None:
    """A hundred megabytes are not even read."""
    os.truncate(bundle.path / "config.json", 100 << 20)
    refuse(runtime, bundle.path, "larger than 16 MiB")


def test_a_configuration_that_is_no_file(runtime: Runtime, bundle: Bundle) -> None:
    """A FIFO does not hang the command, a directory and a loop of links are named for what they are."""
    path = bundle.path / "config.json"
    path.unlink()
    os.mkfifo(path)
    refuse(runtime, bundle.path, "config.json is empty")
    path.unlink()
    path.mkdir()
    refuse(runtime, bundle.path, "is a directory")
    path.rmdir()
    path.symlink_to(path)
    refuse(runtime, bundle.path, "symbolic links")


# ---- values


def add_mounts(bundle: Bundle, *mounts: dict[str, object]) -> None:
    bundle.config["mounts"] += list(mounts)


def bind(source: str, destination: str) -> dict[str, object]:
    return {"source": source, "destination": destination, "type": "bind", "options": ["bind"]}


def join_network(bundle: Bundle, path: str) -> None:
    others = [n for n in bundle.linux["namespaces"] if n["type"] != "network"]
    bundle.linux["namespaces"] = [*others, {"type": "network", "path": path}]


VALUES: dict[str, tuple[Change, str]] = {
    "no version": (lambda b: b.config.pop("ociVersion"), "ociVersion"),
    "no process": (lambda b: b.config.pop("process"), "process"),
    "no args": (lambda b: b.process.update(args=[]), r"process\.args"),
    "args of numbers": (lambda b: b.process.update(args=[1]), r"process\.args\[0\]"),
    "relative cwd": (lambda b: b.process.update(cwd="tmp"), r"process\.cwd"),
    "no root": (lambda b: b.config.pop("root"), "root"),
    "rootfs missing": (lambda b: b.config["root"].update(path="nowhere"), r"root\.path: '.*nowhere': no such file"),
    "rootfs is a file": (lambda b: b.config["root"].update(path="config.json"), r"root\.path: .*not a directory"),
    "rootfs with NUL": (lambda b: b.config["root"].update(path="a\0b"), r"root\.path"),
    "unknown namespace": (
        lambda b: b.linux["namespaces"].append({"type": "mars"}),
        r"linux\.namespaces\[\d\]\.type.*mars",
    ),
    "namespace twice": (lambda b: b.linux["namespaces"].append({"type": "pid"}), r"linux\.namespaces\[\d\]"),
    "namespace path missing": (
        lambda b: join_network(b, "/nowhere"),
        "/nowhere.*no such file",
    ),
    "namespace of another type": (
        lambda b: join_network(b, f"/proc/{os.getpid()}/ns/uts"),
        "ns/uts",
    ),
    "unknown seccomp action": (lambda b: b.linux.update(seccomp={"defaultAction": "SCMP_ACT_SHRUG"}), "SCMP_ACT_SHRUG"),
    "unknown seccomp architecture": (
        lambda b: b.linux.update(seccomp={"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_PDP11"]}),
        "SCMP_ARCH_PDP11",
    ),
    "unknown rlimit": (
        lambda b: b.process.update(rlimits=[{"type": "RLIMIT_FUN", "hard": 1, "soft": 1}]),
        "RLIMIT_FUN",
    ),
    "soft above hard": (
        lambda b: b.process.update(rlimits=[{"type": "RLIMIT_NOFILE", "hard": 1, "soft": 2}]),
        r"process\.rlimits\[0\]|RLIMIT_NOFILE",
    ),
    "relative cgroup of a pattern": (lambda b: b.linux.update(cgroupsPath="a\0b"), "cgroupsPath"),
    "negative memory": (lambda b: b.linux.update(resources={"memory": {"limit": -7}}), "memory"),
    "absurd pids": (lambda b: b.linux.update(resources={"pids": {"limit": 10**30}}), "pids"),
    "cpus that are none": (lambda b: b.linux.update(resources={"cpu": {"cpus": "first"}}), "cpus"),
    "cpus that are not there": (lambda b: b.linux.update(resources={"cpu": {"cpus": "4000"}}), "cpus"),
    "sysctl of the host": (lambda b: b.linux.update(sysctl={"vm.swappiness": "1"}), r"vm\.swappiness"),
    "sysctl that is none": (lambda b: b.linux.update(sysctl={"net.nothing": "1"}), r"net[./]nothing"),
    "bind of nothing": (lambda b: add_mounts(b, bind("/nowhere", "/mnt")), "/nowhere.*no such file"),
    "relative mount": (lambda b: add_mounts(b, {"destination": "../../etc", "type": "nofs"}), r"mounts\[\d+\]|nofs"),
    "mount without destination": (lambda b: add_mounts(b, {"type": "tmpfs"}), r"mounts\[\d+\]\.destination"),
    "unknown file system": (lambda b: add_mounts(b, {"destination": "/mnt", "type": "nofs"}), "nofs"),
    "unknown mount data": (
        lambda b: add_mounts(b, {"destination": "/mnt", "type": "tmpfs", "source": "t", "options": ["shrug=1"]}),
        "/mnt.*shrug|shrug",
    ),
    "mount on a file as directory": (
        lambda b: add_mounts(b, bind("/etc", "/bin/busybox")),
        "/bin/busybox.*not a directory",
    ),
    "device without type": (lambda b: b.linux.update(devices=[{"path": "/dev/x"}]), r"linux\.devices\[0\]"),
    "device of a wrong type": (lambda b: b.linux.update(devices=[{"path": "/dev/x", "type": "z"}]), r"devices\[0\]"),
    "hook without path": (lambda b: b.config.update(hooks={"poststart": [{}]}), r"hooks\.poststart\[0\]"),
    "relative hook": (lambda b: b.config.update(hooks={"poststart": [{"path": "x"}]}), r"hooks\.poststart\[0\]\.path"),
    "unknown capability": (lambda b: b.process["capabilities"]["bounding"].append("CAP_FLY"), "CAP_FLY"),
    "environment without name": (lambda b: b.process.update(env=["=x"]), r"process\.env"),
    "user that is none": (lambda b: b.process.update(user={"uid": -1, "gid": 0}), r"process\.user\.uid"),
    "program missing": (lambda b: b.process.update(args=["/bin/nothing"]), "/bin/nothing.*no such file"),
    "program not in PATH": (lambda b: b.process.update(args=["nothing"]), "nothing.*not found"),
    "program is a directory": (lambda b: b.process.update(args=["/bin"]), "/bin.*(permission|directory)"),
}
# What runc takes, so that a container made for it runs; it is told as a warning.
TOLERATED = {"unknown capability"}


ODD: dict[str, tuple[Change, str]] = {
    "relative mount": (lambda b: add_mounts(b, {"destination": "data", "type": "tmpfs"}), "is not absolute"),
    "kernel memory": (lambda b: b.linux.update(resources={"memory": {"kernel": 1 << 30}}), "settings are ignored"),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_values(any_runtime: Runtime, bundle: Bundle, name: str) -> None:
    """What is taken in another sense than it may have been meant is told, and the container runs."""
    change, words = ODD[name]
    change(bundle)
    result = any_runtime("run", "--bundle", bundle.run("/bin/true").path, any_runtime.id())
    assert [words in line for line in result.stderr.splitlines()].count(True) == 1, repr(result)


@pytest.mark.parametrize("name", VALUES)
def test_values(any_runtime: Runtime, bundle: Bundle, name: str) -> None:
    """The place in the configuration or the thing itself is named."""
    change, words = VALUES[name]
    change(bundle)
    bundle.save()
    if name in TOLERATED:
        any_runtime("run", "--bundle", bundle.path, any_runtime.id())
        return
    refuse(any_runtime, bundle.path, words)


def test_the_same_mount_twice(any_runtime: Runtime, bundle: Bundle) -> None:
    """It is the later one that is seen, as with mount(8)."""
    for text in ("first", "second"):
        (bundle.path / text).mkdir()
        (bundle.path / text / "name").write_text(text)
        add_mounts(bundle, bind(str(bundle.path / text), "/mnt"))
    result = any_runtime("run", "--bundle", bundle.run("/bin/cat", "/mnt/name").path, any_runtime.id())
    assert result.stdout == "second"


def test_a_hundred_thousand_mounts(any_runtime: Runtime, bundle: Bundle) -> None:
    """The kernel's limit on mounts ends it with an error that names the limit, in bearable time."""
    directory = bundle.path / "source"
    directory.mkdir()
    add_mounts(bundle, *[bind(str(directory), f"/mnt/{number % 10}") for number in range(100_000)])
    bundle.save()
    started = time.monotonic()
    result = any_runtime("run", "--bundle", bundle.path, any_runtime.id(), check=False, timeout=120)
    check_refused(result, "no space left on device.*mount-max|16 MiB|too many open files")
    assert time.monotonic() - started < 110
    assert leaks.find(any_runtime) == []


def test_huge_arguments(any_runtime: Runtime, bundle: Bundle) -> None:
    """More than execve(2) takes: E2BIG in words."""
    many = [f"V{number}={'x' * 1000}" for number in range(4000)]
    for args, env in (["/bin/true", "x" * (1 << 20)], []), (["/bin/true"], many):
        bundle.process.update(args=args, env=env)
        result = any_runtime("run", "--bundle", bundle.save().path, any_runtime.id(), check=False)
        check_refused(result, "exec /bin/true: argument list too long", 255)
        assert leaks.find(any_runtime) == []
    name = any_runtime.id()
    bundle.process["env"] = []
    any_runtime("run", "-d", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    result = any_runtime("exec", "--env", "X=" + "x" * 100_000, name, "/bin/sh", "-c", "exit ${#X}", check=False)
    assert result.returncode == 100_000 % 256
    process = any_runtime.directory / "process.json"
    process.write_text(json.dumps({"args": ["/bin/true", "x" * (1 << 20)], "cwd": "/"}))
    check_refused(any_runtime("exec", "--process", process, name, check=False), "argument list too long", 255)


def test_flags_of_exec(any_runtime: Runtime, bundle: Bundle) -> None:
    """Whatever names nothing is told, and the container runs on."""
    name = any_runtime.id()
    any_runtime("run", "-d", "--bundle", bundle.run("/bin/sleep", "100").path, name)
    for flag, value, words in (
        ("--cwd", "tmp", "Cwd must be an absolute path, not 'tmp'"),
        ("--cgroup", "nowhere", "nowhere: no such file or directory \\(--cgroup must name a cgroup that is there"),
        ("--env", "A", "expected NAME=VALUE"),
    ):
        check_refused(any_runtime("exec", flag, value, name, "/bin/true", check=False), words, 255)
    any_runtime("exec", "--cwd", "/tmp", name, "/bin/true")


# ---- bundles and places


def test_bundles(runtime: Runtime, bundle: Bundle) -> None:
    """Missing, a file, and without a configuration: the way to give the right one is told."""
    refuse(runtime, bundle.path / "nowhere", "config.json not found.*--bundle")
    refuse(runtime, bundle.path / "config.json", "not a directory")
    empty = runtime.directory / "empty"
    empty.mkdir()
    refuse(runtime, empty, "config.json not found.*--bundle")


def test_a_bundle_without_permission(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Told as such to a user who may not read it."""
    bundle.path.chmod(0o700)
    argv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
    root = plain_runtime.directory / "nobody"
    root.mkdir()
    os.chown(root, 65534, 65534)
    argv += [str(plain_runtime.program), "--root", str(root), "--no-syscont", "run", "--bundle", str(bundle.path), "x"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, cwd="/")
    check_refused(Result(argv, done.returncode, done.stdout, done.stderr), "cannot read config.json: permission denied")


def tmpfs(request: pytest.FixtureRequest, options: str) -> pathlib.Path:
    """A tmpfs until the test ends."""
    factory: pytest.TempPathFactory = request.getfixturevalue("tmp_path_factory")
    path = factory.mktemp("tmpfs")
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)], check=True)
    request.addfinalizer(lambda: subprocess.run(["umount", "-l", str(path)], check=True))
    return path


def test_state_roots(plain_runtime: Runtime, bundle: Bundle, request: pytest.FixtureRequest) -> None:
    """Read-only, full, a file, a link, somebody else's: the reason and what to do."""
    runtime, top = plain_runtime, plain_runtime.directory
    read_only = tmpfs(request, "ro,mode=700")
    (top / "file").write_text("")
    (top / "link").symlink_to(top)
    (top / "open").mkdir()
    (top / "open").chmod(0o777)
    for root, words in {
        read_only: r"read-only file system.*--root|file system is read-only",
        read_only / "below": r"read-only",
        top / "file": "not a directory",
        top / "link": "symbolic link",
        top / "open": "writable by others.*chmod 0700",
        pathlib.Path("/proc/nowhere"): "no such file or directory",
    }.items():
        runtime.root = root
        for command in ("run", "create"):
            check_refused(runtime(command, "--bundle", bundle.path, runtime.id(), check=False), words)
    runtime.root = top / "state"


@pytest.mark.parametrize("pages", [1, 2, 3, 4, 5, 6])
def test_full_disk(any_runtime: Runtime, bundle: Bundle, request: pytest.FixtureRequest, pages: int) -> None:
    """Wherever it is that the state finds no room any more: all or nothing."""
    runtime = any_runtime
    bundle.config["annotations"] = {"filler": "x" * 3000}
    bundle.save()
    runtime.root = tmpfs(request, f"mode=700,size={4 * pages}k,nr_inodes=20")
    for command in ("run", "create"):
        name = runtime.id()
        result = runtime(command, "--bundle", bundle.path, name, check=False)
        if result.returncode:
            check_refused(result, "no space left on device.*free some space")
        elif command == "create":
            runtime("delete", "--force", name)
        assert leaks.find(runtime) == []


def test_no_inodes(any_runtime: Runtime, bundle: Bundle, request: pytest.FixtureRequest) -> None:
    """The same for files rather than bytes."""
    runtime = any_runtime
    for inodes in range(2, 8):
        runtime.root = tmpfs(request, f"mode=700,size=1m,nr_inodes={inodes}")
        name = runtime.id()
        result = runtime("create", "--bundle", bundle.path, name, check=False)
        if result.returncode:
            check_refused(result, "no space left on device")
            assert leaks.find(runtime) == []
        else:
            # Even then there is room to start it and to take it away.
            runtime("start", name, check=False)
            runtime("delete", "--force", name)


# ---- a host that lacks something


def in_mount_namespace(runtime: Runtime, prepare: str, *command: str) -> Result:
    """Run a command of the runtime in a mount namespace that was changed by a shell script."""
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-ec", prepare + '\nexec "$@"', "sh"]
    argv += runtime.argv(*command)
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)
    return Result(argv, done.returncode, done.stdout, done.stderr)


HOSTS = {
    "no cgroups": ("umount -l -R /sys/fs/cgroup", "no cgroup hierarchy is mounted.*mount -t cgroup2"),
    "something over the cgroups": ("mount -t tmpfs tmpfs /sys/fs/cgroup", "cgroup"),
    "read-only cgroups": (
        "for m in $(awk '$3 ~ /^cgroup/ {print $2}' /proc/self/mounts); do mount -o remount,bind,ro $m; done",
        "cgroup.*read-only file system",
    ),
    "no procfs": ("mount -t tmpfs tmpfs /proc", "/proc"),
    "no sysfs": ("mount -t tmpfs tmpfs /sys", "cgroup"),
    "read-only /run": ("mount -t tmpfs -o ro tmpfs /run", None),
    "no /dev/null": ("mount -t tmpfs tmpfs /dev", None),
    "no /etc": ("mount -t tmpfs tmpfs /etc", None),
    "no /tmp": ("mount -t tmpfs -o size=4k,nr_inodes=1 tmpfs /var/tmp", None),
}


@pytest.mark.parametrize("name", HOSTS)
def test_hosts(any_runtime: Runtime, bundle: Bundle, name: str) -> None:
    """What is missing is named, and what can be done without is."""
    prepare, words = HOSTS[name]
    result = in_mount_namespace(any_runtime, prepare, "run", "--bundle", str(bundle.path), any_runtime.id())
    if result.returncode or words is not None:
        check_refused(result, words or "/run/sysvisor-runc.subid.*read-only|open '/dev/null'")
    assert leaks.find(any_runtime) == []


# ---- hooks and sockets


def hook(path: str, *args: str, **more: object) -> dict[str, object]:
    return {"path": path, "args": [os.path.basename(path), *args], **more}


HOOKS: dict[str, tuple[dict[str, object], str]] = {
    "missing": (hook("/nowhere/hook"), "/nowhere/hook: no such file"),
    "failing": (hook("/bin/sh", "-c", "echo sorry >&2; exit 3"), "exit status 3.*sorry"),
    "killed": (hook("/bin/sh", "-c", "kill -9 $$"), "signal: killed"),
    "hanging": (hook("/bin/sleep", "1000", timeout=1), "timeout of 1"),
    "hanging grandchild": (hook("/bin/sh", "-c", "sleep 2 & exit 4"), "exit status 4"),
    "endless output": (hook("/bin/sh", "-c", "yes | head -c 3000000; exit 5"), "exit status 5"),
    "endless lines": (hook("/usr/bin/yes", timeout=1), "timeout of 1"),
    "binary output": (hook("/bin/sh", "-c", "printf '\\033[31m\\377\\n\\n\\tx'; exit 6"), "exit status 6"),
    "not executable": (hook("/etc/passwd"), "permission denied"),
    "a directory": (hook("/etc"), "permission denied"),
}


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
@pytest.mark.parametrize("name", HOOKS)
def test_hooks(any_runtime: Runtime, bundle: Bundle, kind: str, name: str) -> None:
    """A hook that fails in any way ends the launch, with what it said on one line."""
    entry, words = HOOKS[name]
    bundle.config["annotations"] = {"large": "x" * 200_000}  # more than a pipe takes from whoever does not read
    bundle.config["hooks"] = {kind: [entry]}
    bundle.save()
    result = any_runtime("run", "--bundle", bundle.path, any_runtime.id(), check=False)
    assert result.returncode == 1, repr(result)
    lines = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert len(lines) == 1, repr(result)
    assert re.search(rf"{kind} hook #0: .*{words}", lines[0]), repr(result)
    assert "\033" not in lines[0]
    assert leaks.find(any_runtime) == []


def test_a_hook_that_does_not_read(any_runtime: Runtime, bundle: Bundle) -> None:
    """It need not be interested in the state, whatever its size."""
    bundle.config["annotations"] = {"large": "x" * 200_000}
    bundle.config["hooks"] = {kind: [hook("/bin/true")] for kind in ("createRuntime", "createContainer", "poststop")}
    any_runtime("run", "--bundle", bundle.save().path, any_runtime.id())


@pytest.fixture
def deaf(workplace: pathlib.Path) -> Iterator[pathlib.Path]:
    """A socket whose owner accepts nobody, with a full queue."""
    path = workplace / "deaf.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen(0)
        waiting = socket.socket(socket.AF_UNIX)
        waiting.connect(str(path))
        yield path
        waiting.close()


def test_a_listener_that_accepts_nobody(plain_runtime: Runtime, bundle: Bundle, deaf: pathlib.Path) -> None:
    """The launch does not wait for it for ever."""
    bundle.process["terminal"] = True
    flags = ["--console-socket", str(deaf), "--bundle", str(bundle.save().path)]
    result = plain_runtime("create", *flags, plain_runtime.id(), check=False)
    check_refused(result, "--console-socket: connect to .*: resource temporarily unavailable")


def test_places_that_take_nothing(any_runtime: Runtime, bundle: Bundle) -> None:
    """Pid files and sockets where nobody is: the flag is named."""
    runtime, nowhere = any_runtime, str(any_runtime.directory / "nowhere" / "x")
    refuse(runtime, bundle.path, "--pid-file: write .*nowhere/x.*: no such file", "--pid-file", nowhere)
    refuse(runtime, bundle.path, "--pid-file: write .*: is a directory", "--pid-file", str(runtime.directory))
    refuse(runtime, bundle.path, "--pidfd-socket: connect to .*: no such file", "--pidfd-socket", nowhere)
    bundle.process["terminal"] = True
    bundle.save()
    stale = runtime.directory / "stale"
    with socket.socket(socket.AF_UNIX) as closed:
        closed.bind(str(stale))
    for path, words in {
        nowhere: "no such file",
        str(stale): "connection refused",
        str(bundle.path / "config.json"): "connection refused",
        "/" + "x" * 200: "too long",
    }.items():
        for command in ("create", "run"):
            detach = ["-d"] if command == "run" else []
            flags = [*detach, "--console-socket", path, "--bundle", str(bundle.path)]
            result = runtime(command, *flags, runtime.id(), check=False)
            check_refused(result, rf"--console-socket: .*{words}")
            assert leaks.find(runtime) == []


def test_debug_shows_the_traceback(runtime: Runtime, bundle: Bundle) -> None:
    """Only then."""
    shutil.rmtree(bundle.rootfs)
    assert "Traceback" in runtime("--debug", "run", "--bundle", bundle.path, runtime.id(), check=False).stderr
