"""The terminal that this command was called from, and what a container's terminal takes over from it. No asyncio.

Relayed exactly (stdin and stdout are terminals): the container's terminal stays as the kernel makes it, and ours passes
every byte on untouched. Otherwise ONLCR is cleared on the container's, as runc does, so that what lands in a file or
pipe carries the program's own line ends.
"""

from __future__ import annotations

import fcntl
import os
import termios

from sysvisor_runc.errors import LaunchError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal as _signal  # the same functions, and typeshed knows it

    from sysvisor_runc.launch.request import Request
    from sysvisor_runc.spec.types import Box
else:
    import _signal

_SIGWINCH = 28
_WINSIZE = 8  # struct winsize: rows, columns and two sizes in pixels, a u16 each
_OFLAG = 1
# cfmakeraw(3), but for OPOST.
_RAW_IFLAG = (
    termios.IGNBRK
    | termios.BRKINT
    | termios.PARMRK
    | termios.ISTRIP
    | termios.INLCR
    | termios.IGNCR
    | termios.ICRNL
    | termios.IXON
)
_RAW_LFLAG = termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN


def open_caller_terminal() -> int:
    """A descriptor of the caller's terminal: that of stdout, stdin or stderr, else the controlling one.

    Raises:
        LaunchError: there is none, so nobody could use a terminal that we relay.
    """
    for fd in (1, 0, 2):
        if os.isatty(fd):
            return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        return os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        hint = "process.terminal (exec: --tty) needs one, unless --detach and --console-socket are given"
        raise LaunchError(f"open /dev/tty: {reason(error)}", hint=hint) from error


def check_request(request: Request, *, terminal: bool) -> None:
    """Fail early where nobody could use the terminal that a launch is to make, or where a socket waits for none.

    Raises:
        LaunchError: see `open_caller_terminal`; or the flags and process.terminal contradict each other.
    """
    if terminal and request.detached and not (request.console_socket or request.keeps_console):
        raise LaunchError(
            "cannot allocate tty if sysvisor-runc will detach without setting console socket",
            hint="give --console-socket, leave out --no-supervisor, or set process.terminal to false",
        )
    if request.console_socket and not (terminal and request.detached):
        raise LaunchError("cannot use console socket if sysvisor-runc will not detach or allocate tty")
    if terminal and not request.detached:
        check_caller_terminal()


def check_caller_terminal() -> None:
    """Fail early where there is no terminal to relay to.

    Raises:
        LaunchError: see `open_caller_terminal`.
    """
    os.close(open_caller_terminal())


def adapt(master: int, wanted: Box | None) -> None:
    """Prepare the container's terminal for a relay to ours, before a program sees it; `wanted`: its consoleSize."""
    if not _exact():
        attributes = termios.tcgetattr(master)
        attributes[_OFLAG] &= ~termios.ONLCR
        termios.tcsetattr(master, termios.TCSANOW, attributes)
    if wanted and wanted["height"] and wanted["width"]:
        return
    # From here on a change of size stays pending until the relay reads signals: a blocked signal is kept even where
    # its default is to be ignored.
    _signal.pthread_sigmask(_signal.SIG_BLOCK, (_SIGWINCH,))
    terminal = open_caller_terminal()
    try:
        copy_size(terminal, master)
    finally:
        os.close(terminal)


def copy_size(terminal: int, master: int) -> None:
    """Give the container's terminal the size of ours; its foreground processes get SIGWINCH where that changes it."""
    try:
        fcntl.ioctl(master, termios.TIOCSWINSZ, fcntl.ioctl(terminal, termios.TIOCGWINSZ, bytes(_WINSIZE)))
    except OSError:
        pass  # one of the two has been hung up: nobody looks at the size any more


class CallerTerminal:
    """Our terminal while we relay: raw inside the `with`, and as it was afterwards, however that is left.

    Raw only where stdin is a terminal: with input from elsewhere its Ctrl-C shall still be a signal. Signals must be
    blocked by then, so that none ends the process in between (SIGTTOU too: blocked, it lets tcsetattr(3) pass).
    """

    __slots__ = ("_before", "fd")

    def __init__(self) -> None:
        self.fd = open_caller_terminal()
        self._before: list[int | list[bytes | int]] | None = None

    def take(self) -> None:
        """Make it raw, unless we are in the background: then it is our shell's or another job's just now."""
        if not os.isatty(0) or not _in_foreground():
            return
        if self._before is None:
            self._before = termios.tcgetattr(0)
        termios.tcsetattr(0, termios.TCSANOW, _raw(exact=_exact()))

    def give_back(self) -> None:
        """Restore it; safe to call again, and where it has been hung up."""
        if self._before is not None:
            try:
                termios.tcsetattr(0, termios.TCSANOW, self._before)
            except termios.error:
                pass
            self._before = None
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def __enter__(self) -> CallerTerminal:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()


def _exact() -> bool:
    return os.isatty(0) and os.isatty(1)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:
        return True  # not our controlling terminal: no job control on it


def _raw(*, exact: bool) -> list[int | list[bytes | int]]:
    iflag, oflag, cflag, lflag, ispeed, ospeed, characters = termios.tcgetattr(0)
    iflag &= ~_RAW_IFLAG
    lflag &= ~_RAW_LFLAG
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    if exact:
        oflag &= ~termios.OPOST
    characters[termios.VMIN], characters[termios.VTIME] = 1, 0
    return [iflag, oflag, cflag, lflag, ispeed, ospeed, characters]
