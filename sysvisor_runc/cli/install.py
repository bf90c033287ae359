"""`sysvisor-runc install`: tell container engines about this runtime, by editing their configuration with care.

A file is replaced as a whole or not at all, what it was is kept beside it, and doing it twice changes nothing.
"""

from __future__ import annotations

import os
import sys

from sysvisor_runc.cli.engines import ENGINES, NAME
from sysvisor_runc.errors import SysvisorError, UsageError, reason

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.engines import Engine
    from sysvisor_runc.cli.parse import Options

BACKUP = ".before-sysvisor-runc"


def run(options: Options) -> int:
    chosen = [
        name
        for name, wanted in (
            ("docker", options.flag("docker")),
            ("containerd", options.flag("containerd")),
            ("podman", options.flag("podman")),
            ("crio", options.flag("crio")),
        )
        if wanted
    ]
    config = options.text("config")
    if not chosen:
        raise UsageError("name an engine: " + ", ".join(f"--{name}" for name in ENGINES))
    if config and len(chosen) > 1:
        raise UsageError("--config is for one engine at a time")
    if options.flag("default") and options.flag("uninstall"):
        raise UsageError("--default and --uninstall cannot be combined")
    program = own_path()
    for name in chosen:
        engine = ENGINES[name]
        _change(engine, os.path.realpath(config or engine.config), program, options)
    return 0


def own_path() -> str:
    """Where this program is, as an engine will call it. Raises SysvisorError."""
    path = os.path.abspath(sys.argv[0])
    if not os.access(path, os.X_OK):
        raise SysvisorError(f"{path!r} cannot be executed", hint="call the installed program by its path")
    return path


def _change(engine: Engine, path: str, program: str, options: Options) -> None:
    old = read(path)
    uninstall = options.flag("uninstall")
    try:
        new = engine.edit(old or "", program, options.flag("default"), uninstall)
    except SysvisorError as error:
        raise SysvisorError(f"{path}: {error}", hint=error.hint) from error
    if new == (old or ""):
        _say(f"{path}: nothing to change")
        return
    if options.flag("dry-run"):
        _show(path, old or "", new)
        return
    kept = _backup(path, old)
    if new:
        _replace(path, new, old is not None)
    else:
        _remove(path)
    _say(f"{path}: {'changed' if new else 'removed'}{kept}")
    if engine.restart:
        _say(f"  now: {engine.restart}")
    if not uninstall:
        _say(f"  then: {engine.use}")


def read(path: str) -> str | None:
    """The text of a file, None where it is not there. Raises SysvisorError."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SysvisorError(f"read {path!r}: {reason(error)}") from error
    except UnicodeDecodeError as error:
        raise SysvisorError(f"read {path!r}: it is not UTF-8 text") from error


def _show(path: str, old: str, new: str) -> None:
    import difflib

    lines = difflib.unified_diff(old.splitlines(True), new.splitlines(True), path, path)
    sys.stdout.write("".join(line if line.endswith("\n") else line + "\n" for line in lines))


def _backup(path: str, old: str | None) -> str:
    """Keep what the file was before the first change of ours; words about it."""
    if old is None or NAME in old or os.path.exists(path + BACKUP):
        return ""
    _replace(path + BACKUP, old, False, like=path)
    return f" (before: {path}{BACKUP})"


def _replace(path: str, text: str, existing: bool, like: str = "") -> None:
    """Write a new file and rename it over the old one, whose mode and owner it takes."""
    new = f"{path}.new-{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            with open(fd, "w", encoding="utf-8") as file:
                if existing or like:
                    status = os.stat(like or path)
                    os.fchown(file.fileno(), status.st_uid, status.st_gid)
                    os.fchmod(file.fileno(), status.st_mode & 0o7777)
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.rename(new, path)
        except BaseException:
            os.unlink(new)
            raise
    except OSError as error:
        hint = "run it as root" if error.errno in (1, 13) else None
        raise SysvisorError(f"write {path!r}: {reason(error)}", hint=hint) from error


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except OSError as error:
        raise SysvisorError(f"remove {path!r}: {reason(error)}") from error


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
