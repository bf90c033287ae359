"""`process`: who it is, where it starts, what it is given, and how its end is told."""

import array
import fcntl
import os
import pathlib
import signal
import socket
import struct
import termios
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import listening, observe, start, status, user_namespace
from tests.support.runtime import Runtime


def test_user_and_groups(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Real, effective, saved and file-system ids; the additional groups and no others; the umask."""
    bundle.process["user"] = {"uid": 1001, "gid": 1002, "additionalGids": [5, 7, 4_000_000_000], "umask": 0o027}
    name, pid = start(plain_runtime, bundle)
    fields = status(pid)
    assert fields["Uid"].split() == ["1001"] * 4
    assert fields["Gid"].split() == ["1002"] * 4
    assert fields["Groups"].split() == ["5", "7", "4000000000"]
    assert int(fields["Umask"], 8) == 0o027
    assert plain_runtime("exec", name, "/bin/sh", "-c", "id -G; umask").stdout.split()[-1] == "0027"


def test_the_usual_umask(plain_runtime: Runtime, bundle: Bundle) -> None:
    """0022, whatever the caller's."""
    before = os.umask(0o077)
    try:
        assert observe(plain_runtime, bundle, umask="umask")["umask"] == "0022"
    finally:
        os.umask(before)


def test_environment(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Exactly what the spec says, the last of two winning; HOME comes from the rootfs's passwd where it is missing."""
    (bundle.rootfs / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nsome:x:1234:1234::/home/some:/bin/sh\n")
    bundle.process["env"] = ["PATH=/bin", "A=first", "EMPTY=", "A=last=one", "ODD=a b\nc"]
    bundle.process["user"] = {"uid": 1234, "gid": 1234}
    seen = observe(plain_runtime, bundle, env="tr '\\0' '|' </proc/self/environ")
    entries = [
        entry for entry in seen["env"].split("|") if entry and not entry.startswith(("PWD=", "SHLVL=", "OLDPWD="))
    ]
    assert sorted(entries) == ["A=last=one", "EMPTY=", "HOME=/home/some", "ODD=a b\nc", "PATH=/bin"]


def test_working_directory(plain_runtime: Runtime, bundle: Bundle) -> None:
    """As given, made where it is missing; one that neither the user nor root may enter is told."""
    bundle.process["cwd"] = "/made/for/this"
    assert observe(plain_runtime, bundle, cwd="pwd")["cwd"] == "/made/for/this"
    (bundle.rootfs / "closed").mkdir(mode=0o700)
    bundle.process["cwd"] = "/closed"
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    user_namespace(bundle)  # in which nobody owns the directory
    bundle.process["capabilities"] = {}
    bundle.run("/bin/true")
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "/closed" in error and "permission denied" in error


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["no-such-program"], 'exec: "no-such-program": executable file not found in $PATH'),
        (["/no/such/program"], 'exec: "/no/such/program": stat /no/such/program: no such file or directory'),
        (["/etc/passwd"], 'exec: "/etc/passwd": permission denied'),
        (["/etc"], 'exec: "/etc": '),
    ],
)
def test_a_program_that_cannot_be(plain_runtime: Runtime, bundle: Bundle, args: list[str], words: str) -> None:
    """Told when the container is created, in runc's words."""
    bundle.run(*args)
    name = plain_runtime.id()
    assert words in plain_runtime.fails("create", "--bundle", bundle.path, name).stderr
    assert name not in plain_runtime.ids()


def test_a_program_is_looked_up_as_the_environment_says(plain_runtime: Runtime, bundle: Bundle) -> None:
    """In PATH of the process's env, inside the rootfs; relative to the working directory where it has a slash."""
    place = bundle.rootfs / "odd/place"
    place.mkdir(parents=True)
    (place / "tool").symlink_to("/bin/busybox")
    bundle.process["env"] = ["PATH=/nowhere:/odd/place:/bin"]
    bundle.run("echo", "found")
    assert plain_runtime("run", "--bundle", bundle.path, plain_runtime.id()).stdout == "found\n"
    (place / "script").write_text("#!/bin/sh\necho script in $PWD\n")
    (place / "script").chmod(0o755)
    bundle.process["cwd"] = "/odd"
    bundle.run("place/script")
    assert plain_runtime("run", "--bundle", bundle.path, plain_runtime.id()).stdout == "script in /odd\n"


def test_no_new_privileges(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Set and not set; a program with the set-user-ID bit then changes nothing."""
    for wanted in (True, False):
        bundle.process["noNewPrivileges"] = wanted
        name, pid = start(plain_runtime, bundle)
        assert status(pid)["NoNewPrivs"] == str(int(wanted))
        joined = plain_runtime("exec", name, "/bin/grep", "NoNewPrivs", "/proc/self/status").stdout
        assert joined.split()[1] == str(int(wanted))


@pytest.mark.parametrize("userns", [False, True])
def test_oom_score_adj(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """As given; left out, the caller's."""
    if userns:
        user_namespace(bundle)
    own = pathlib.Path("/proc/self/oom_score_adj").read_text()
    _, pid = start(plain_runtime, bundle)
    assert pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text() == own
    bundle.process["oomScoreAdj"] = 321
    _, pid = start(plain_runtime, bundle)
    assert pathlib.Path(f"/proc/{pid}/oom_score_adj").read_text() == "321\n"


def test_personality(plain_runtime: Runtime, bundle: Bundle) -> None:
    """LINUX32 makes the machine look like one of 32 bits, for processes that join too."""
    bundle.linux["personality"] = {"domain": "LINUX32"}
    name, pid = start(plain_runtime, bundle)
    assert pathlib.Path(f"/proc/{pid}/personality").read_text().strip() == "00000008"
    assert plain_runtime("exec", name, "/bin/cat", "/proc/self/personality").stdout.strip() == "00000008"
    bundle.linux["personality"] = {"domain": "LINUX"}
    assert observe(plain_runtime, bundle, machine="uname -m")["machine"] == os.uname().machine


def test_session_keyring(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A new one for each container, unless --no-new-keyring keeps the caller's."""
    if not pathlib.Path("/proc/keys").exists():
        pytest.skip("no /proc/keys; to force it: a kernel with CONFIG_KEYS")
    bundle.linux["maskedPaths"] = []
    name = plain_runtime.id()
    bundle.run("/bin/cat", "/proc/keys")
    assert f"_ses.{name}" in plain_runtime("run", "--bundle", bundle.path, name).stdout
    other = plain_runtime.id()
    assert f"_ses.{other}" not in plain_runtime("run", "--no-new-keyring", "--bundle", bundle.path, other).stdout


def test_descriptors(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Standard ones only, whatever the caller has open; --preserve-fds hands over those that follow."""
    fds = [os.memfd_create(f"fd{n}", 0) for n in range(4)]
    for number, fd in enumerate(fds):
        os.write(fd, f"text {number}".encode())
    script = "for f in /proc/self/fd/*; do echo ${f##*/}; done; for n in 3 4; do cat /proc/self/fd/$n; done; true"

    def hand_over() -> None:
        for number, fd in enumerate(fds):
            os.lseek(fd, 0, os.SEEK_SET)
            os.dup2(fd, 3 + number, inheritable=True)

    bundle.sh(script)
    keep: dict[str, Any] = {"close_fds": False, "preexec_fn": hand_over}
    seen = plain_runtime("run", "--bundle", bundle.path, plain_runtime.id(), **keep).stdout
    assert "text" not in seen
    seen = plain_runtime("run", "--preserve-fds", "2", "--bundle", bundle.path, plain_runtime.id(), **keep).stdout
    assert "text 0text 1" in seen and "\n5\n6" not in seen
    for fd in fds:
        os.close(fd)


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_streams_are_the_callers_own(plain_runtime: Runtime, bundle: Bundle, verb: str) -> None:
    """Without a terminal they are inherited, not copied: the same open files, and their end is the program's to see."""
    program = ("/bin/sh", "-c", "stat -Lc %d:%i /proc/self/fd/0 /proc/self/fd/1; cat; echo end >&2")
    name = plain_runtime.id()
    arguments: tuple[str | os.PathLike[str], ...] = ("run", "--bundle", bundle.run(*program).path, name)
    if verb == "exec":
        plain_runtime("run", "--detach", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
        arguments = ("exec", name, *program)
    reader, writer = os.pipe()
    with open(plain_runtime.directory / "output", "w+b") as output:
        running = plain_runtime.start_background(*arguments, stdin=reader, stdout=output)
        streams = [f"{found.st_dev}:{found.st_ino}" for found in (os.fstat(reader), os.fstat(output.fileno()))]
        os.close(reader)
        os.write(writer, b"word")
        os.close(writer)
        done = running.wait()
        output.seek(0)
        assert output.read().decode().splitlines() == [*streams, "word"]
    assert done.returncode == 0
    assert done.stderr.endswith("end\n")  # behind what the command may have to warn of


@pytest.mark.parametrize(("script", "code"), [("exit 0", 0), ("exit 37", 37), ("kill -TERM $$", 128 + signal.SIGTERM)])
def test_exit_code(plain_runtime: Runtime, bundle: Bundle, script: str, code: int) -> None:
    """The program's own; 128+n where a signal ended it."""
    if "kill" in script:  # pid 1 of a namespace is spared its own signals
        bundle.linux["namespaces"] = [n for n in bundle.linux["namespaces"] if n["type"] != "pid"]
    bundle.sh(script)
    assert plain_runtime("run", "--bundle", bundle.path, plain_runtime.id(), check=False).returncode == code


def test_signal_dispositions_start_afresh(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Nothing ignored and nothing blocked, whatever the caller ignores or blocks."""

    def ignore() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])

    bundle.run("/bin/grep", "Sig", "/proc/self/status")
    result = plain_runtime("run", "--bundle", bundle.path, plain_runtime.id(), preexec_fn=ignore)
    fields = dict(line.split() for line in result.stdout.replace(":", "").splitlines())
    assert (int(fields["SigBlk"], 16), int(fields["SigIgn"], 16)) == (0, 0)


@pytest.mark.parametrize("userns", [False, True])
def test_a_terminal_of_a_size(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """The master comes over the console socket, has the size asked for, belongs to the user, and is /dev/console."""
    if userns:
        user_namespace(bundle)
    bundle.process["terminal"] = True
    bundle.process["consoleSize"] = {"height": 33, "width": 77}
    bundle.process["user"] = {"uid": 12, "gid": 12}
    bundle.sh("tty; stat -c %u $(tty); stat -c %t:%T /dev/console; sleep 1000")
    name = plain_runtime.id()
    with listening(bundle.path / "console") as server:
        plain_runtime("run", "--detach", "--console-socket", bundle.path / "console", "--bundle", bundle.path, name)
        connection, _ = server.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    master = array.array("i", ancillary[0][2][:4])[0]
    with open(master, "rb", buffering=0) as terminal:
        rows, columns = struct.unpack("HH", fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(8))[:4])
        said = b""
        while said.count(b"\n") < 3:
            said += terminal.read(4096)
    assert (rows, columns) == (33, 77)
    path, owner, console = said.decode().replace("\r", "").split()[:3]
    assert path.startswith("/dev/pts/") and owner == "12" and console.startswith("88:")
