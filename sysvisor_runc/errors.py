"""What can go wrong, for a person: the failure, a hint, and the exit code.

Imports nothing. Layers below the command line raise these; only the command line prints them.
"""


class SysvisorError(Exception):
    """A failure that a person can act on, told in one line.

    `message` names what failed, on what, and why; lower-case, no full stop.
    `hint` says what to do now. `exit_code` is the command's, 1 as in runc. `bare`: the message is the container's
    rather than ours, and is told without our name before it.
    """

    exit_code = 1
    bare = False

    def __init__(self, message: str, *, hint: str | None = None, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        return self.message


class UsageError(SysvisorError):
    """The command line itself is wrong: unknown command, bad flag, missing argument."""


class SpecError(SysvisorError):
    """`config.json` cannot be used. `path` is the JSON path of the offending value, such as `process.args[0]`."""

    def __init__(self, path: str, problem: str, *, hint: str | None = None) -> None:
        super().__init__(f"invalid configuration: {path}: {problem}" if path else problem, hint=hint)
        self.path = path


class StateError(SysvisorError):
    """The container's state does not allow it: unknown, already there, in the wrong status."""


class NoSuchContainer(StateError):
    """There is no directory for this id."""


class NoRecord(StateError):
    """The directory is there but has no usable record: the command that was creating it was killed, or still works."""


class CgroupError(SysvisorError):
    """A cgroup cannot be made, configured, joined or removed."""


class LaunchError(SysvisorError):
    """A container process could not be brought up."""


def reason(error: OSError) -> str:
    """The errno text as it reads at the end of a message: `no such file or directory`."""
    text = error.strerror or str(error)
    return text if text[:2].isupper() else text[:1].lower() + text[1:]  # AF_UNIX path too long
