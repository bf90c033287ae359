"""The process table: as `ps -ef` prints it, and harmless whatever a process is called."""

import os
import pathlib
import subprocess

from sysvisor_runc.state.proctable import HEADER, table


def rows(*pids: int) -> list[list[str]]:
    """The cells of the lines about these processes."""
    return [line.split(None, 7) for line in table(list(pids), lambda uid: f"user{uid}").splitlines()[1:]]


def settle(process: subprocess.Popen[bytes]) -> None:
    """Wait until it has its arguments: the kernel sets them a moment after the execve that Popen waits for."""
    while not pathlib.Path(f"/proc/{process.pid}/cmdline").read_bytes():
        pass


def test_the_header_is_that_of_ps() -> None:
    """Callers of runc look for it."""
    assert table([], str).split() == list(HEADER)


def test_a_process_is_described() -> None:
    """User, pid, parent and command line are its own."""
    with subprocess.Popen(["/bin/sleep", "1000"], env={}) as process:
        settle(process)
        ((user, pid, parent, _, _, terminal, used, command),) = rows(process.pid)
        process.kill()
    assert (user, pid, parent) == (f"user{os.geteuid()}", str(process.pid), str(os.getpid()))
    assert (terminal == "?" or "/" in terminal or terminal.startswith("tty"), used) == (True, "00:00:00")
    assert command == "/bin/sleep 1000"


def minutes(clock: str) -> int:
    """15:04 as the minute of the day; of a process that is older, another day's, 0."""
    hour, colon, minute = clock.partition(":")
    return int(hour) * 60 + int(minute) if colon else 0


def test_it_agrees_with_ps() -> None:
    """Of our own process the host's ps tells the same, but for what goes on counting."""
    ((*ours,),) = rows(os.getpid())
    theirs = subprocess.run(
        ["ps", "-ww", "-o", "pid=,ppid=,stime=,tty=,args=", "-p", str(os.getpid())], capture_output=True, text=True
    ).stdout.split(None, 4)
    assert [ours[1], ours[2], ours[5], ours[7].split()[0]] == [*theirs[:2], theirs[3], theirs[4].split()[0]]
    # Both add ticks to a boot time that is told in whole seconds: at the turn of a minute they may differ.
    assert (minutes(ours[4]) - minutes(theirs[2]) + 1) % (24 * 60) <= 2


def test_processes_that_are_gone_are_left_out() -> None:
    """Without an error: they come and go while we look."""
    assert rows(os.getpid(), 2**22 + 1, 0)[0][1] == str(os.getpid())
    assert len(rows(os.getpid(), 2**22 + 1)) == 1


def test_lines_are_in_the_order_of_pids() -> None:
    """Whatever order the cgroup lists them in."""
    pids = sorted([os.getpid(), os.getppid()])
    assert [int(row[1]) for row in rows(*reversed(pids))] == pids


def test_a_zombie_is_shown_as_defunct() -> None:
    """It has no arguments any more, but a name."""
    with subprocess.Popen(["/bin/sleep", "1000"]) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert rows(process.pid)[0][7] == "[sleep] <defunct>"


def test_no_control_code_gets_through(tmp_path: pathlib.Path) -> None:
    """Escape sequences, line breaks and broken UTF-8 in a command line or a name print as question marks."""
    with subprocess.Popen([b"\x1b]0;evil\x07\n\r\xff\xc2\x9b\xe2\x80\xae", "1000"], executable="/bin/sleep") as process:
        settle(process)
        text = table([process.pid], str)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert len(text.splitlines()) == 2
    assert all(character.isprintable() for line in text.splitlines() for character in line)
    named = tmp_path / "\x1b[31m\n"
    named.symlink_to("/bin/sleep")
    with subprocess.Popen([named, "1000"]) as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        text = table([process.pid], str)
    assert "[?[31m?] <defunct>" in text


def test_columns_are_as_wide_as_their_contents() -> None:
    """A user name longer than the column is shown in full, and all stays aligned."""
    lines = table([os.getpid(), os.getppid()], lambda _: "2013265920-and-more").splitlines()
    assert len({line.index(" ", 19) for line in lines[1:]}) == 1
    assert lines[1].startswith("2013265920-and-more ")
