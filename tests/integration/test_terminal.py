"""Terminals: relayed in the foreground of `run` and `exec`, on both loops, and sent away to a console socket."""

import hashlib
import os
import pathlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import user_namespace
from tests.support.loops import LOOPS, require
from tests.support.runtime import Runtime, wait_until
from tests.support.terminal import ConsoleSocket, Terminal, on_terminal

CTRL_C, CTRL_D, CTRL_Z, ESCAPE = "\x03", "\x04", "\x1a", "\x1b"
# It speaks once it is the terminal's foreground job; the quotes keep its echo from looking like it.
JOB = """sh -c 'echo sta""rted; exec sleep 1000'"""
MIB = 1 << 20
# How much goes through a terminal to be compared by hash. SYSVISOR_CONSOLE_MIB=1024 asks for a GiB: minutes.
LONG = int(os.environ.get("SYSVISOR_CONSOLE_MIB", "32")) * MIB
NO_SOCKET = "cannot allocate tty if sysvisor-runc will detach without setting console socket"
NO_TERMINAL = "cannot use console socket if sysvisor-runc will not detach or allocate tty"


@pytest.fixture(params=LOOPS)
def loop(request: pytest.FixtureRequest) -> str:
    """The name of each loop that is installed."""
    name: str = request.param
    require(name)
    return name


@pytest.fixture(params=["plain", "system"])
def mode(request: pytest.FixtureRequest) -> Runtime:
    """The runtime in plain mode, where a container shares the host's user namespace, and in system mode."""
    fixture = "plain_runtime" if request.param == "plain" else "runtime"
    runtime: Runtime = request.getfixturevalue(fixture)
    return runtime


@pytest.fixture
def shell(bundle: Bundle) -> Bundle:
    """A bundle with a shell on a terminal."""
    bundle.process["terminal"] = True
    return bundle.run("/bin/sh")


@pytest.fixture
def console_socket(tmp_path: pathlib.Path) -> Iterator[ConsoleSocket]:
    """A listener for terminals."""
    listener = ConsoleSocket(tmp_path)
    yield listener
    listener.close()


@pytest.fixture
def container(plain_runtime: Runtime, new_bundle: Callable[..., Bundle]) -> str:
    """A running container without a terminal of its own, for `exec`."""
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "--bundle", new_bundle("/bin/sleep", "1000").path, name)
    return name


def rss(terminal: Terminal) -> int:
    """Resident memory of the command, in bytes."""
    status = pathlib.Path(f"/proc/{terminal.process.pid}/status").read_text()
    return int(re.findall(r"VmRSS:\s+(\d+)", status)[0]) * 1024


def _shell(runtime: Runtime, shell: Bundle, verb: str, script: str = "") -> tuple[str | pathlib.Path, ...]:
    """The arguments that run a shell, or a script, on a terminal: as a container, or in one that runs already."""
    program = ("/bin/sh", "-c", script) if script else ("/bin/sh",)
    name = runtime.id()
    if verb == "run":
        return "run", "--bundle", shell.run(*program).path, name
    shell.process["terminal"] = False
    runtime("run", "--detach", "--bundle", shell.run("/bin/sleep", "1000").path, name)
    return "exec", "--tty", name, *program


# ---- an interactive shell


def test_a_line_is_echoed_and_answered(plain_runtime: Runtime, shell: Bundle, loop: str) -> None:
    """What is typed is echoed by the container's terminal, once, and the program's lines end in CR LF."""
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id(), loop=loop) as terminal:
        terminal.prompt()
        terminal.line("echo =$((6 * 7))=")
        assert terminal.expect(r"echo .*\r\n=42=\r\n").count("echo") == 1
        used = b"uvloop" in pathlib.Path(f"/proc/{terminal.process.pid}/maps").read_bytes()
        assert used == (loop == "uvloop")
        terminal.line("exit 7")
        assert terminal.wait() == 7
        assert terminal.is_restored()


def test_size_at_the_start_and_when_it_changes(mode: Runtime, shell: Bundle) -> None:
    """The program has the caller's size before its first instruction, and each new one with SIGWINCH."""
    shell.sh("stty size; trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done")
    with on_terminal(mode, "run", "--bundle", shell.path, mode.id(), size=(31, 71)) as terminal:
        terminal.expect("31 71\r\nready")
        terminal.resize(42, 92)
        terminal.expect("42 92")


def test_console_size_of_the_spec_counts(plain_runtime: Runtime, shell: Bundle) -> None:
    """consoleSize is the size at the start; from the first resize on the caller's counts."""
    shell.process["consoleSize"] = {"height": 11, "width": 44}
    shell.save()
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id(), size=(31, 71)) as terminal:
        terminal.prompt()
        terminal.line("stty size")
        terminal.expect("11 44")
        terminal.resize(42, 92)
        terminal.line("stty size")
        terminal.expect("42 92")


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_keys_act_inside(plain_runtime: Runtime, shell: Bundle, loop: str, verb: str) -> None:
    """Ctrl-C and Ctrl-Z end and stop the container's foreground job, Ctrl-D ends its input; we see none of them."""
    with on_terminal(plain_runtime, *_shell(plain_runtime, shell, verb), loop=loop) as terminal:
        terminal.prompt()
        assert terminal.is_raw()
        terminal.line(JOB)
        terminal.expect("started")
        terminal.send(CTRL_C)
        terminal.prompt()
        terminal.line("echo code=$?")
        terminal.expect("code=130")
        terminal.line(JOB)
        terminal.expect("started")
        terminal.send(CTRL_Z)
        terminal.expect("Stopped")
        terminal.line("kill -KILL %1; wait; " + JOB.replace("sleep 1000", "cat"))
        terminal.expect("started")
        terminal.line("again")
        terminal.expect("again\r\n.*again\r\n")
        terminal.send(CTRL_D)
        terminal.prompt()
        terminal.line("exit")
        assert terminal.wait() == 0
        assert terminal.is_restored()


def test_vi_edits_and_saves(mode: Runtime, shell: Bundle) -> None:
    """A full-screen program works: busybox vi writes what was typed into it."""
    with on_terminal(mode, "run", "--bundle", shell.path, mode.id()) as terminal:
        terminal.prompt()
        terminal.line("vi /tmp/poem")
        terminal.expect("vi /tmp/poem\r\n")
        terminal.expect("/tmp/poem")  # its own line at the bottom: from then on keys are its
        terminal.send("iroses are red\rviolets are blue" + ESCAPE)
        terminal.expect("violets are blue")
        terminal.send(":wq\r")
        terminal.prompt()
        terminal.line("exit")
        assert terminal.wait() == 0
    assert (shell.rootfs / "tmp/poem").read_text() == "roses are red\nviolets are blue\n"


def test_the_controlling_terminal_is_the_containers(mode: Runtime, shell: Bundle) -> None:
    """stdin, /dev/tty and /dev/console are one terminal of the container's own devpts, owned by its user."""
    shell.process["user"] = {"uid": 1000, "gid": 1000}
    shell.sh("tty; stat -c '%u:%g %t:%T' $(tty) /dev/console; echo >/dev/tty && echo writable")
    with on_terminal(mode, "run", "--bundle", shell.path, mode.id()) as terminal:
        terminal.expect("/dev/pts/0\r\n1000:5 88:0\r\n1000:5 88:0\r\n")
        terminal.expect("writable")
        assert terminal.wait() == 0


# ---- nothing lost, nothing unbounded


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_long_output_arrives_whole(plain_runtime: Runtime, shell: Bundle, loop: str, verb: str) -> None:
    """Every byte through a slow reader, from a program that ends with its last one: see LONG."""
    block = os.urandom(16 * MIB)
    rounds = LONG // len(block)
    (shell.rootfs / "data").write_bytes(block)
    program = f"stty -opost; for n in $(seq {rounds}); do cat /data; done"
    wanted, found = hashlib.sha256(), hashlib.sha256()
    for _ in range(rounds):
        wanted.update(block)
    size = 0
    with on_terminal(plain_runtime, *_shell(plain_runtime, shell, verb, program), loop=loop) as terminal:
        while size < rounds * len(block):
            part = terminal.read()
            found.update(part)
            size += len(part)
            if size % MIB < len(part):
                time.sleep(0.005)
        assert terminal.wait() == 0
    assert size == rounds * len(block)
    assert found.hexdigest() == wanted.hexdigest()


def test_a_program_that_never_reads_costs_no_memory(plain_runtime: Runtime, shell: Bundle, loop: str) -> None:
    """What is typed at a program that does not listen is held back at the caller's terminal."""
    shell.sh("stty raw -echo; trap 'exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id(), loop=loop) as terminal:
        terminal.expect("ready")
        before = rss(terminal)
        os.set_blocking(terminal.master, False)
        typed = idle = 0
        while idle < 20:
            try:
                typed += os.write(terminal.master, b"x" * 4096)
                idle = 0
            except BlockingIOError:
                idle += 1
                time.sleep(0.02)
            assert typed < 4 * MIB
        assert rss(terminal) - before < MIB
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 9


def test_a_large_paste_arrives_whole(plain_runtime: Runtime, shell: Bundle, loop: str) -> None:
    """Input that the program takes slowly is held back, not lost."""
    shell.sh("stty raw -echo; echo go; sleep 0.5; head -c 300000 | sha256sum")
    pasted = os.urandom(150_000).hex().encode()
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id(), loop=loop) as terminal:
        terminal.expect("go")
        sent = 0
        while sent < len(pasted):
            sent += os.write(terminal.master, pasted[sent : sent + 4096])
        terminal.expect(hashlib.sha256(pasted).hexdigest())


def test_a_stopped_reader_costs_no_memory(plain_runtime: Runtime, shell: Bundle, loop: str) -> None:
    """A program that prints without end is held back while nobody reads; signals are forwarded all the same."""
    shell.sh("trap 'exit 9' TERM; echo ready; yes & wait")
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id(), loop=loop) as terminal:
        terminal.expect("ready")
        time.sleep(0.3)
        full = rss(terminal)
        time.sleep(0.3)
        assert rss(terminal) - full < MIB
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 9


def test_a_reader_that_never_reads_can_be_given_up(plain_runtime: Runtime, shell: Bundle) -> None:
    """With the program gone and its output stuck, SIGTERM ends the command with the program's code."""
    shell.sh("yes")
    name = plain_runtime.id()
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, name) as terminal:
        terminal.expect("y")
        plain_runtime("kill", name, "KILL")
        plain_runtime.wait_status(name, "stopped")
        time.sleep(0.1)
        assert terminal.process.poll() is None, terminal.errors()
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.process.wait(20) == 137
        assert terminal.is_restored()


# ---- ends, kills, hang-ups


def test_a_killed_container_leaves_the_callers_terminal_as_it_was(mode: Runtime, shell: Bundle, loop: str) -> None:
    """Raw while it runs, restored after SIGKILL; the exit code is 137."""
    name = mode.id()
    with on_terminal(mode, "run", "--bundle", shell.path, name, loop=loop) as terminal:
        terminal.prompt()
        assert terminal.is_raw()
        mode("kill", name, "KILL")
        assert terminal.wait() == 137
        assert terminal.is_restored()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGUSR1])
def test_signals_reach_the_program(plain_runtime: Runtime, shell: Bundle, number: signal.Signals) -> None:
    """A signal to the command is the program's, whose exit code is then ours."""
    shell.sh(f"trap 'exit 40' {number.value}; echo ready; while :; do sleep 0.05; done")
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id()) as terminal:
        terminal.expect("ready")
        terminal.process.send_signal(number)
        assert terminal.wait() == 40
        assert terminal.is_restored()


def test_a_program_that_cannot_start_restores_the_terminal(plain_runtime: Runtime, shell: Bundle) -> None:
    """A failure of the last step finds the terminal raw already and leaves it as it was."""
    (shell.rootfs / "broken").write_text("#!/no/such/interpreter\n")
    (shell.rootfs / "broken").chmod(0o755)
    shell.run("/broken")
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id()) as terminal:
        assert terminal.wait() not in (0, None)
        assert "exec /broken: no such file or directory" in terminal.errors()
        assert terminal.is_restored()


def test_a_stopped_command_takes_the_terminal_again(plain_runtime: Runtime, shell: Bundle) -> None:
    """After SIGSTOP, a shell's own settings and SIGCONT, the terminal is raw again and input flows."""
    import termios

    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id()) as terminal:
        terminal.prompt()
        terminal.process.send_signal(signal.SIGSTOP)
        termios.tcsetattr(terminal.slave, termios.TCSANOW, terminal.before)
        terminal.process.send_signal(signal.SIGCONT)
        wait_until(terminal.is_raw, what="raw mode")
        terminal.line("exit 3")
        assert terminal.wait() == 3
        assert terminal.is_restored()


def test_a_program_may_leave_its_terminal_and_come_back(mode: Runtime, shell: Bundle) -> None:
    """With nobody on the terminal for a while the console is not given up: systemd opens it as it needs it."""
    shell.sh(
        "exec </dev/null >/dev/null 2>&1; sleep 0.3; echo back again >/dev/console; sleep 0.3; echo end >/dev/console"
    )
    with on_terminal(mode, "run", "--bundle", shell.path, mode.id()) as terminal:
        terminal.expect("back again")
        terminal.expect("end")
        assert terminal.wait() == 0


def test_a_closed_window_hangs_the_container_up(plain_runtime: Runtime, shell: Bundle) -> None:
    """Whoever closes the reading end of our output hangs the container's terminal up: its shell gets SIGHUP."""
    shell.sh("trap 'exit 50' HUP; echo ready; while :; do echo more; sleep 0.02; done")
    reader, writer = os.pipe()
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id(), stdout=writer) as terminal:
        os.close(writer)
        assert os.read(reader, 5) == b"ready"
        os.close(reader)
        # Ash finds its output broken (EIO) or gets the signal first; either way it does not stay.
        assert terminal.wait() != 0
        assert terminal.is_restored()


def test_a_lost_connection_hangs_the_container_up(plain_runtime: Runtime, shell: Bundle, loop: str) -> None:
    """When our own terminal is gone, a shell that waits for input is not left waiting for ever."""
    with on_terminal(plain_runtime, "run", "--bundle", shell.path, plain_runtime.id(), loop=loop) as terminal:
        terminal.prompt()
        terminal.hang_up()
        terminal.process.wait(20)


# ---- without a terminal on stdin


def test_input_from_elsewhere(plain_runtime: Runtime, shell: Bundle, tmp_path: pathlib.Path) -> None:
    """stdin and stdout may be files: the program still has a terminal, its lines end as it wrote them."""
    (tmp_path / "script").write_text("stty -echo; stty size\nexit 5\n")
    shell.process["env"].append("PS1=")
    shell.save()
    with open(tmp_path / "script") as stdin, open(tmp_path / "output", "wb") as stdout:
        args = ("run", "--bundle", shell.path, plain_runtime.id())
        with on_terminal(plain_runtime, *args, size=(21, 51), stdin=stdin, stdout=stdout) as terminal:
            assert terminal.wait() == 5
            assert terminal.is_restored()
    output = (tmp_path / "output").read_bytes()
    assert b"21 51\n" in output
    assert b"\r\n" not in output


def test_the_end_of_input_ends_nothing(plain_runtime: Runtime, shell: Bundle) -> None:
    """With stdin from /dev/null the program goes on, as under runc: a terminal has no half-close."""
    shell.sh("sleep 0.2; stty size; exit 6")
    with on_terminal(
        plain_runtime, "run", "--bundle", shell.path, plain_runtime.id(), stdin=subprocess.DEVNULL
    ) as terminal:
        terminal.expect("33 77")
        assert terminal.wait() == 6


@pytest.mark.parametrize("verb", ["run", "exec"])
def test_a_relay_needs_a_terminal_somewhere(plain_runtime: Runtime, shell: Bundle, container: str, verb: str) -> None:
    """Without any terminal in reach the command fails before it makes anything, in runc's words."""
    shell.run("/bin/sh")
    args = ("exec", "--tty", container, "/bin/sh") if verb == "exec" else ("run", "-b", shell.path, plain_runtime.id())
    result = plain_runtime.fails(*args, start_new_session=True)
    assert "open /dev/tty: no such device or address" in result.stderr


# ---- exec


def test_exec_has_the_callers_size(mode: Runtime, bundle: Bundle, loop: str) -> None:
    """`exec -t` gives a terminal of the container's own devpts, of the caller's size, owned by the process's user."""
    name = mode.id()
    mode("run", "--detach", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    args = ("exec", "--tty", "--user", "1000", name, "/bin/sh")
    with on_terminal(mode, *args, size=(17, 67), loop=loop) as terminal:
        terminal.prompt()
        terminal.line("stty size; tty; stat -c %u:%g $(tty)")
        terminal.expect("17 67\r\n/dev/pts/0\r\n1000:5\r\n")
        terminal.resize(18, 68)
        terminal.line("stty size")
        terminal.expect("18 68")
        terminal.line("kill -KILL $$")
        assert terminal.wait() == 137
        assert terminal.is_restored()


def test_exec_does_not_wait_for_what_is_left_behind(plain_runtime: Runtime, container: str) -> None:
    """A process that stays and keeps the terminal holds nobody, and what was printed before the end is there."""
    script = "trap '' HUP; sleep 1000 & echo started; exit 4"
    with on_terminal(plain_runtime, "exec", "--tty", container, "/bin/sh", "-c", script) as terminal:
        terminal.expect("started")
        assert terminal.wait() == 4


def test_exec_writes_its_lines_as_they_are(plain_runtime: Runtime, container: str, tmp_path: pathlib.Path) -> None:
    """Where the output goes to a file no CR is added, not even to the very first line."""
    with open(tmp_path / "output", "wb") as stdout:
        args = ("exec", "--tty", container, "/bin/echo", "first")
        with on_terminal(plain_runtime, *args, stdout=stdout) as terminal:
            assert terminal.wait() == 0
    assert (tmp_path / "output").read_bytes() == b"first\n"


# ---- sent away


@pytest.mark.parametrize("verb", ["create", "run"])
def test_the_console_socket_gets_the_terminal(
    mode: Runtime, shell: Bundle, console_socket: ConsoleSocket, verb: str
) -> None:
    """One message with one descriptor; inside it is stdin and /dev/console, the user's, and set as the kernel does."""
    shell.process["user"] = {"uid": 1000, "gid": 1000}
    shell.sh("stat -c '%u %t:%T' $(tty) /dev/console; stty -a; sleep 0.1")
    name = mode.id()
    detach = ("--detach",) if verb == "run" else ()
    mode(verb, *detach, "--console-socket", console_socket.path, "--bundle", shell.path, name)
    if verb == "create":
        mode("start", name)
    data, printed = console_socket.output()
    assert data == b"/dev/ptmx"
    assert "1000 88:0\r\n1000 88:0\r\n" in printed
    assert " onlcr" in printed


def test_a_terminal_of_a_user_namespace(plain_runtime: Runtime, shell: Bundle, console_socket: ConsoleSocket) -> None:
    """In a user namespace that the spec asks for, the terminal is the user's there and the sender's out here."""
    user_namespace(shell)
    shell.process["user"] = {"uid": 1000, "gid": 1000}
    shell.sh("stat -c '%u %t:%T' $(tty) /dev/console; sleep 0.1")
    socket = console_socket.path
    plain_runtime("run", "-d", "--console-socket", socket, "--bundle", shell.path, plain_runtime.id())
    assert "1000 88:0\r\n1000 88:0\r\n" in console_socket.output()[1]


def test_exec_sends_its_terminal_away(mode: Runtime, bundle: Bundle, console_socket: ConsoleSocket) -> None:
    """`exec -d -t --console-socket` works as for containers, and takes its size from --process."""
    name = mode.id()
    mode("run", "--detach", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    script = "stat -c '%u %t' $(tty); stty size; sleep 0.1"
    mode("exec", "-d", "-t", "--console-socket", console_socket.path, "-u", "1000", name, "/bin/sh", "-c", script)
    data, printed = console_socket.output()
    assert data == b"/dev/ptmx"
    assert "1000 88\r\n" in printed


def test_exec_takes_the_size_that_its_process_says(
    plain_runtime: Runtime, container: str, console_socket: ConsoleSocket, tmp_path: pathlib.Path
) -> None:
    """consoleSize of --process counts."""
    (tmp_path / "process.json").write_text(
        '{"terminal": true, "consoleSize": {"height": 10, "width": 110}, "cwd": "/", "user": {"uid": 0, "gid": 0},'
        ' "env": ["PATH=/bin"], "args": ["/bin/sh", "-c", "stty size; sleep 0.1"]}'
    )
    args = ("exec", "-d", "--console-socket", console_socket.path, "--process", tmp_path / "process.json", container)
    plain_runtime(*args)
    assert "10 110\r\n" in console_socket.output()[1]


Arguments = Callable[[Bundle, str], tuple[Any, ...]]
REFUSED: dict[str, tuple[Arguments, str]] = {
    "create": (lambda bundle, name: ("create", "-b", bundle.path, name), NO_SOCKET),
    "run -d": (lambda bundle, name: ("run", "-d", "--no-supervisor", "-b", bundle.path, name), NO_SOCKET),
    "run": (lambda bundle, name: ("run", "--console-socket", "/nowhere", "-b", bundle.path, name), NO_TERMINAL),
}


@pytest.mark.parametrize("case", REFUSED)
def test_terminals_that_nobody_could_have_are_refused(plain_runtime: Runtime, shell: Bundle, case: str) -> None:
    """A detached terminal needs a socket or a supervisor, a relayed one no socket: in runc's words; nothing is made."""
    arguments, message = REFUSED[case]
    assert message in plain_runtime.fails(*arguments(shell, plain_runtime.id())).stderr


def test_exec_refuses_likewise(plain_runtime: Runtime, container: str) -> None:
    """`exec -d -t` without a socket, and a socket without a terminal."""
    assert NO_SOCKET in plain_runtime.fails("exec", "-d", "-t", container, "/bin/sh").stderr
    refused = plain_runtime.fails("exec", "-d", "--console-socket", "/nowhere", container, "/bin/sh")
    assert NO_TERMINAL in refused.stderr


def test_a_console_socket_without_listener_is_named(plain_runtime: Runtime, shell: Bundle) -> None:
    """The error names flag and path, and nothing is left of the container."""
    result = plain_runtime.fails(
        "run", "-d", "--console-socket", "/no/such/socket", "-b", shell.path, plain_runtime.id()
    )
    assert "--console-socket" in result.stderr
    assert "/no/such/socket" in result.stderr
    assert plain_runtime.ids() == []
