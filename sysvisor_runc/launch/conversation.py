"""The launch conversation without I/O: what the child may say when, and what the host does about it.

The drivers (blocking for the short commands, asyncio where a gRPC call is awaited) only carry the answers out.

    building --RUNTIME_HOOKS--> building   run prestart and createRuntime, then GO_ON
    building --CONSOLE--------> building   take the terminal, then GO_ON
    building --IDMAP----------> building   ID-map a mount of the child's, then GO_ON
    building --FS_…-----------> building   send the mounts of sysvisor-fs, or register there, then GO_ON
    building --READY----------> staged     the last stage is about to run
    staged ----INIT-----------> staged     init is another process now: a joined pid namespace is entered last; GO_ON
    staged ----LISTENER-------> staged     take the seccomp listener, then GO_ON
    staged ----end------------> launched   the last stage has closed its end: identity and working directory stand
    any -------FAILED---------> failed
    building --end------------> failed     the child died without a word
"""

from __future__ import annotations

from sysvisor_runc.child import channel as messages
from sysvisor_runc.errors import LaunchError

BUILDING = "building"
STAGED = "staged"
LAUNCHED = "launched"
FAILED = "failed"

_NEXT = {
    (BUILDING, messages.RUNTIME_HOOKS): BUILDING,
    (BUILDING, messages.CONSOLE): BUILDING,
    (BUILDING, messages.IDMAP): BUILDING,
    (BUILDING, messages.FS_TREES): BUILDING,
    (BUILDING, messages.FS_REGISTER): BUILDING,
    (BUILDING, messages.READY): STAGED,
    (STAGED, messages.INIT): STAGED,
    (STAGED, messages.LISTENER): STAGED,
}


class InitVanished(LaunchError):
    """Init ended without a word."""

    def __init__(self) -> None:
        super().__init__("unable to start container process: the container's init ended unexpectedly")


class Conversation:
    """Attributes: `state`; `calls`, what each call of the last stage is for, by index, once it is known."""

    __slots__ = ("calls", "state")

    def __init__(self) -> None:
        self.state = BUILDING
        self.calls: list[str] = []

    def received(self, kind: bytes, payload: bytes) -> None:
        """Take in one message of the child; the driver acts on `kind` afterwards.

        Raises:
            LaunchError: the child failed, or said what it may not say now.
        """
        if kind == messages.FAILED:
            self.state = FAILED
            raise init_failure(payload.decode("utf-8", "surrogateescape"))
        following = _NEXT.get((self.state, kind))
        if following is None:
            raise LaunchError(f"unexpected message {kind!r} from the container's init in state {self.state!r}")
        self.state = following
        if kind == messages.READY:
            self.calls = payload.decode("utf-8", "surrogateescape").split("\n")

    def ended(self, report: bytes) -> None:
        """The child's end is closed; `report` is what the last stage wrote about a call that failed.

        Raises:
            LaunchError: the container is not there.
        """
        if report:
            self.state = FAILED
            raise self.stage_failure(report)
        if self.state != STAGED:
            self.state = FAILED
            raise InitVanished
        self.state = LAUNCHED

    def stage_failure(self, report: bytes) -> LaunchError:
        """What a report means: index of a call of the last stage and errno, a u32 each."""
        import os

        index, number = int.from_bytes(report[:4], "little"), int.from_bytes(report[4:8], "little")
        what = self.calls[index] if index < len(self.calls) else f"call {index}"
        text = os.strerror(number)
        text = text[:1].lower() + text[1:]
        if what.startswith("exec "):
            return LaunchError(f"{what}: {text}", exit_code=255)
        return init_failure(f"{what}: {text}")


def init_failure(text: str) -> LaunchError:
    """A failure of the container's init, in runc's words."""
    hook = text.startswith("error running ")
    lead = "unable to start container process: " + ("" if hook else "error during container init: ")
    return LaunchError(lead + text)
