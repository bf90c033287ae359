"""Reads config.json and the smaller files of `exec --process` and `update -r`, hostile ones included.

Everything is bounded: the size here, the nesting by the JSON scanner. No heavier import than `os`.
"""

from __future__ import annotations

import os

from sysvisor_runc import jsonlight
from sysvisor_runc.errors import SpecError, reason
from sysvisor_runc.spec.validate import validate, validate_process, validate_resources

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection

    from sysvisor_runc.spec.types import LinuxResources, Process, Spec

CONFIG = "config.json"
# The largest configurations met in the wild (ten thousands of mounts) stay below 4 MiB.
LIMIT = 16 * 1024 * 1024
_CHUNK = 1024 * 1024


def load(
    bundle: str,
    warn: list[str] | None = None,
    *,
    rootless: bool = False,
    added: Collection[str] = (),
) -> Spec:
    """The checked configuration of a bundle; see `validate` for the arguments. Raises SpecError."""
    hint = f"looked in {bundle!r}; --bundle names another directory, `spec` writes a config.json"
    # A FIFO in a stranger's bundle must not hang the command.
    value = _read(os.path.join(bundle, CONFIG), CONFIG, "", os.O_NONBLOCK, hint)
    return validate(value, warn, rootless=rootless, added=added)


def load_process(path: str) -> Process:
    """The checked process of a file, or of a pipe as in `--process <(…)`. Raises SpecError."""
    return validate_process(_read(path, path, "process"))


def load_resources(path: str, warn: list[str] | None = None) -> LinuxResources:
    """The checked resource limits of a file, `-` being standard input. Raises SpecError."""
    return validate_resources(_read(path, path, "resources"), warn)


def _read(path: str, name: str, within: str, flags: int = 0, hint: str | None = None) -> object:
    try:
        data = _read_bounded(path, flags)
    except FileNotFoundError:
        raise SpecError("", f"JSON specification file {name} not found", hint=hint) from None
    except OSError as error:
        raise SpecError("", f"cannot read {name}: {reason(error)}", hint=hint) from None
    except ValueError:
        raise SpecError("", f"cannot read {name!r}: the name contains a NUL character") from None
    if len(data) > LIMIT:
        raise SpecError("", f"{name} is larger than {LIMIT // (1024 * 1024)} MiB")
    if not data.strip():
        raise SpecError("", f"{name} is empty", hint="`sysvisor-runc spec` writes a new one")
    try:
        value = jsonlight.loads(data)
    except jsonlight.JSONError as error:
        raise SpecError("", f"{name} is not valid JSON: {error}") from None
    if b"\\ud" in data or b"\\uD" in data:
        from sysvisor_runc.spec.surrogates import refuse_halves

        refuse_halves(value, within)
    return value


def _read_bounded(path: str, flags: int) -> bytes:
    """The content, or one byte more than the limit of a file that is larger (or endless)."""
    fd = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOCTTY | flags)
    try:
        chunks: list[bytes] = []
        room = LIMIT + 1
        while room > 0 and (chunk := os.read(fd, min(room, _CHUNK))):
            chunks.append(chunk)
            room -= len(chunk)
        return b"".join(chunks)
    finally:
        if fd:
            os.close(fd)
