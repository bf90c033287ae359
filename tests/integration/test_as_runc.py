"""What runc's own suite pins and was once otherwise here: small things that clients have come to expect."""

import os
import pathlib
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import mounted, observe, start, user_namespace
from tests.support.runtime import Runtime


def test_the_callers_cpus_are_not_inherited(plain_runtime: Runtime, bundle: Bundle) -> None:
    """`run` and `exec` from a caller bound to one CPU give the container all that its cgroup allows."""
    everything = os.sched_getaffinity(0)
    if len(everything) < 2:
        pytest.skip("one CPU only; to force it: a machine with more")
    os.sched_setaffinity(0, {min(everything)})
    try:
        name, pid = start(plain_runtime, bundle)
        joined = plain_runtime("exec", name, "/bin/grep", "Cpus_allowed_list", "/proc/self/status").stdout
    finally:
        os.sched_setaffinity(0, everything)
    assert os.sched_getaffinity(pid) == everything
    assert "-" in joined or "," in joined


def test_a_low_limit_does_not_hinder_the_launch(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A dozen files are too few for furnishing a root, yet a program may ask for so few; for `exec` too."""
    (bundle.path / "volume").mkdir()
    bundle.config["mounts"] += [{"source": "volume", "destination": f"/v{n}", "options": ["bind"]} for n in range(16)]
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 12, "hard": 12}]
    name, pid = start(plain_runtime, bundle)
    assert "12                   12" in pathlib.Path(f"/proc/{pid}/limits").read_text()
    assert plain_runtime("exec", name, "/bin/sh", "-c", "ulimit -n").stdout == "12\n"


def test_a_working_directory_that_only_root_may_enter(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Root enters it before becoming the user; and a user its own directory that root without capabilities may not."""
    (bundle.rootfs / "closed").mkdir(mode=0o700)
    (bundle.rootfs / "own").mkdir(mode=0o700)
    os.chown(bundle.rootfs / "own", 1234, 1234)
    for directory in ("/closed", "/own"):
        bundle.process["cwd"] = directory
        bundle.process["user"] = {"uid": 1234, "gid": 1234}
        name, pid = start(plain_runtime, bundle)
        assert os.readlink(f"/proc/{pid}/cwd") == directory
        assert plain_runtime("exec", "--user", "0", name, "/bin/true").returncode == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_container_before_its_start(
    plain_runtime: Runtime, bundle: Bundle, number: signal.Signals
) -> None:
    """As the first process of its pid namespace it would ignore every signal but SIGKILL."""
    name = plain_runtime.id()
    plain_runtime("create", "--bundle", bundle.path, name)
    os.kill(plain_runtime.state(name)["pid"], number)
    plain_runtime.wait_status(name, "stopped")


def test_a_program_that_cannot_be_executed_is_told_bare(plain_runtime: Runtime, bundle: Bundle) -> None:
    """One line, as the kernel's answer to the program and not as a failure of the launch."""
    script = bundle.rootfs / "run.sh"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    bundle.run("/run.sh")
    result = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id())
    lines = [line for line in result.stderr.splitlines() if "warning" not in line]
    assert (result.returncode, lines) == (255, ["exec /run.sh: no such file or directory"])


def test_a_mount_point_made_for_a_tmpfs_gives_it_no_mode(plain_runtime: Runtime, bundle: Bundle) -> None:
    """1777, the file system's own default; one that was there hands its mode on."""
    (bundle.rootfs / "there").mkdir(mode=0o710)
    bundle.config["mounts"] += [{"type": "tmpfs", "source": "tmpfs", "destination": d} for d in ("/there", "/a/b/c")]
    seen = observe(plain_runtime, bundle, modes="stat -c %a /there /a/b/c /a/b")
    assert seen["modes"].split() == ["710", "1777", "755"]


def test_directories_above_a_bound_file_can_be_searched(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A file's mode is none for the directories that are made on the way to it."""
    bundle.config["mounts"].append({"source": "config.json", "destination": "/x/y/file", "options": ["bind"]})
    seen = observe(plain_runtime, bundle, modes="stat -c %a /x /x/y; test -s /x/y/file && echo read")
    assert seen["modes"].split() == ["755", "755", "read"]


def test_a_path_masked_twice_is_covered_once(plain_runtime: Runtime, bundle: Bundle) -> None:
    """However it is spelled."""
    (bundle.rootfs / "secret").mkdir()
    bundle.linux["maskedPaths"] += ["/secret", "/secret/", "//secret"]
    seen = observe(plain_runtime, bundle, count="grep -c ' /secret ' /proc/self/mountinfo")
    assert seen["count"] == "1"


@pytest.fixture
def restricted(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A mount that is read-only, nosuid, nodev and noatime, gone with the test."""
    directory = tmp_path / "restricted"
    directory.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", directory], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro,nosuid,nodev,noatime", directory], check=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", directory], check=True)


@pytest.mark.parametrize(
    ("options", "plain", "userns"),
    [
        (["bind"], {"ro", "nosuid", "nodev", "noatime"}, {"ro", "nosuid", "nodev", "noatime"}),
        (["bind", "noexec"], {"rw", "noexec", "noatime"}, {"ro", "nosuid", "nodev", "noexec", "noatime"}),
        (["bind", "ro", "exec"], {"ro", "noatime"}, {"ro", "nosuid", "nodev", "noatime"}),
        (["bind", "rw"], {"rw", "noatime"}, None),
        (["bind", "relatime"], {"rw", "relatime"}, None),
    ],
)
def test_words_of_a_bind_set_every_flag(
    plain_runtime: Runtime,
    bundle: Bundle,
    restricted: pathlib.Path,
    options: list[str],
    plain: set[str],
    userns: set[str] | None,
) -> None:
    """What is not named goes; in a user namespace it stays, and naming it is an error."""
    bundle.config["mounts"].append({"source": str(restricted), "destination": "/mnt", "options": options})
    _, pid = start(plain_runtime, bundle)
    assert mounted(pid)["/mnt"]["options"] == plain
    user_namespace(bundle)
    bundle.run("/bin/sleep", "1000")
    name = plain_runtime.id()
    result = plain_runtime("run", "--detach", "--bundle", bundle.path, name, check=False)
    if userns is None:
        assert result.returncode == 1 and "operation not permitted" in result.stderr
    else:
        assert mounted(plain_runtime.state(name)["pid"])["/mnt"]["options"] == userns


def test_binds_within_the_root_see_what_is_mounted_there(plain_runtime: Runtime, bundle: Bundle) -> None:
    """In order, and by the path on the host for the destination too."""
    (bundle.path / "outer").mkdir()
    (bundle.path / "outer/file").write_text("from outside")
    inside = f"{bundle.rootfs}/first"
    bundle.config["mounts"] += [
        {"source": "outer", "destination": "/first", "options": ["bind"]},
        {"source": inside, "destination": f"{bundle.rootfs}/second", "options": ["rbind"]},
    ]
    seen = observe(plain_runtime, bundle, text="cat /second/file")
    assert seen["text"] == "from outside"


def test_hooks_find_the_root_at_its_path(plain_runtime: Runtime, bundle: Bundle) -> None:
    """createRuntime hooks that enter the mount namespace, as GPU runtimes do, and createContainer ones in their cwd."""
    enter = "pid=$(sed 's/.*\"pid\": *\\([0-9]*\\).*/\\1/'); nsenter -m -t $pid touch "
    bundle.config["hooks"] = {
        "createRuntime": [_shell(enter + shlex.quote(f"{bundle.rootfs}/tmp/by-runtime"))],
        "createContainer": [_shell("touch tmp/by-container")],
    }
    bundle.config["mounts"].append({"type": "tmpfs", "source": "tmpfs", "destination": "/tmp"})
    seen = observe(plain_runtime, bundle, files="ls /tmp")
    assert seen["files"].split() == ["by-container", "by-runtime"]


def _shell(script: str) -> dict[str, object]:
    return {"path": "/bin/sh", "args": ["sh", "-c", script]}


def test_start_hooks_are_filtered(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A startContainer hook is a program of the container: its seccomp filter holds for it."""
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    }
    bundle.process["rlimits"] = [{"type": "RLIMIT_CORE", "soft": 0, "hard": 0}]
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/tmp/made"]}]}
    bundle.run("/bin/true")
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "error running startContainer hook #0: signal: bad system call" in error
    assert not (bundle.rootfs / "tmp/made").exists()


def test_a_deadline_scheduler_for_a_process_that_joins(plain_runtime: Runtime, bundle: Bundle) -> None:
    """SCHED_DEADLINE does not pass on to children, so it is set on the process itself; it needs every CPU."""
    name, _ = start(plain_runtime, bundle)
    process = bundle.path / "process.json"
    process.write_text(
        '{"args": ["/bin/sleep", "1000"], "cwd": "/", "scheduler": {"policy": "SCHED_DEADLINE", "runtime": 42000,'
        ' "deadline": 100000, "period": 1000000, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}}'
    )
    pid_file = bundle.path / "pid"
    plain_runtime("exec", "--detach", "--pid-file", pid_file, "--process", process, name)
    assert os.sched_getscheduler(int(pid_file.read_text())) & 0xFF == 6  # SCHED_DEADLINE (sched(7))


def test_time_offsets_in_a_user_namespace(plain_runtime: Runtime, bundle: Bundle) -> None:
    """They are written although procfs gives the file to the host's root."""
    if not os.path.exists("/proc/self/ns/time"):
        pytest.skip("no time namespaces; to force it: a kernel with CONFIG_TIME_NS")
    user_namespace(bundle)
    bundle.linux["namespaces"].append({"type": "time"})
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 7, "nanosecs": 5}}
    name, pid = start(plain_runtime, bundle)
    lines = pathlib.Path(f"/proc/{pid}/timens_offsets").read_text().splitlines()
    assert ["boottime", "7", "5"] in [line.split() for line in lines]
    assert name in plain_runtime.ids()


def test_exec_into_a_cgroup_that_is_not_there(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Told with the words that clients look for."""
    name, _ = start(plain_runtime, bundle)
    error = plain_runtime.fails("exec", "--cgroup", "absent", name, "/bin/true").stderr
    assert " adding pid " in error and "no such file or directory" in error
