"""Find the user's program inside a root file system, and complete its environment. May import kernel and child."""

from __future__ import annotations

import os
import stat

from sysvisor_runc.child import paths, users

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.plan import ProcessPlan

_DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class ProgramNotFound(OSError):
    """The program is not there or not executable; the text is the whole message."""

    def __str__(self) -> str:
        return str(self.strerror)


def find(process: ProcessPlan, root: int) -> str:
    """The path of `process.args[0]`, looked up in PATH of its environment as execvp(3) would inside `root`.

    Raises:
        ProgramNotFound: with ENOENT or EACCES and a message as runc words it.
    """
    name = process.args[0]
    if "/" in name:
        path = name if name.startswith("/") else f"{process.cwd}/{name}"
        failure = _check(root, path)
        if failure:
            raise _not_found(failure, name)
        return name
    failure = 0
    for directory in _search_path(process.env).split(":"):
        candidate = f"{directory or '.'}/{name}"
        found = _check(root, candidate if candidate.startswith("/") else f"{process.cwd}/{candidate}")
        if not found:
            return candidate
        if found == 13:  # EACCES is told only if nothing better turns up
            failure = found
    if failure:
        raise _not_found(failure, name)
    raise ProgramNotFound(2, f'exec: "{name}": executable file not found in $PATH')


def _not_found(errno: int, name: str) -> ProgramNotFound:
    text = os.strerror(errno)
    stat_of = f"stat {name}: " if errno == paths.ENOENT else ""
    return ProgramNotFound(errno, f'exec: "{name}": {stat_of}{text[0].lower()}{text[1:]}')


def _check(root: int, path: str) -> int:
    """0 if `path` is a file that somebody may execute, else the errno. Whether *this* user may is execve's to say."""
    try:
        fd = paths.open_in_root(root, path)
    except OSError as error:
        # A magic link (/proc/self/exe) means another file to whoever follows it: execve will say.
        return 0 if error.errno == paths.ELOOP or path.startswith("/proc/") else error.errno or paths.ENOENT
    mode = os.fstat(fd).st_mode
    os.close(fd)
    if stat.S_ISDIR(mode):
        return 13  # EACCES, as execve(2) has it
    return 0 if mode & 0o111 else 13


def _search_path(env: list[str]) -> str:
    for entry in env:
        if entry.startswith("PATH="):
            return entry[5:]
    return _DEFAULT_PATH


def complete_environment(process: ProcessPlan, root: int) -> None:
    """Add HOME from the root file system's passwd where the environment has none, or an empty one, as runc does."""
    for entry in process.env:
        if entry.startswith("HOME=") and len(entry) > 5:
            return
    process.env = [entry for entry in process.env if not entry.startswith("HOME=")]
    process.env.append("HOME=" + users.home_of(root, process.identity.uid))
