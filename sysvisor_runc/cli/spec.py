"""`sysvisor-runc spec`: write a config.json to start from."""

from __future__ import annotations

import os

from sysvisor_runc import jsonlight
from sysvisor_runc.errors import SysvisorError, UsageError, reason
from sysvisor_runc.spec.template import default_spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cli.parse import Options

CONFIG = "config.json"
_ID_LIMIT = (1 << 32) - 1  # the id 2^32-1 means "no id" to the kernel (setresuid(2))


def run(options: Options) -> int:
    """Write the file, readable by whoever the umask allows, unless there is one."""
    id_map = options.text("id-map")
    rootless = options.flag("rootless")
    if id_map and rootless:
        raise UsageError(
            "--rootless and --id-map cannot be combined", hint="a rootless container maps only its user's own id"
        )
    mapping = None if id_map is None else parse_id_map(id_map)
    spec = default_spec(rootless=rootless, id_map=mapping, conforming=options.globals.no_syscont)
    write_new(os.path.join(options.text("bundle") or "", CONFIG), jsonlight.dumps(spec, indent=4) + "\n")
    return 0


def parse_id_map(text: str) -> tuple[int, int, int]:
    """`UID GID SIZE` as numbers. Raises UsageError unless they name ranges that exist."""
    words = text.split()
    if len(words) != 3 or not all(word.isascii() and word.isdigit() and len(word) < 11 for word in words):
        raise UsageError(f"invalid value {text!r} for flag --id-map: expected three numbers, 'UID GID SIZE'")
    uid, gid, size = (int(word) for word in words)
    if size == 0 or max(uid, gid) + size > _ID_LIMIT:
        raise UsageError(f"invalid value {text!r} for flag --id-map: ids must be between 0 and {_ID_LIMIT - 1}")
    return uid, gid, size


def write_new(path: str, text: str) -> None:
    """Make the file `path` with this content. Raises SysvisorError if it exists or cannot be written in full."""
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    except FileExistsError as error:
        raise SysvisorError(f"file {path} exists", hint="remove it first") from error
    except OSError as error:
        raise SysvisorError(f"create {path!r}: {reason(error)}") from error
    try:
        with open(fd, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:  # half a config.json is worse than none
        os.unlink(path)
        raise SysvisorError(f"write {path!r}: {reason(error)}") from error
