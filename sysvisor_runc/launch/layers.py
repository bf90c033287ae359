"""Find the layers of the overlay that is mounted at a root file system or a volume. Loaded only where one is."""

from __future__ import annotations

import os

from sysvisor_runc.errors import reason
from sysvisor_runc.kernel.statfs import fstatfs
from sysvisor_runc.syscont.layers import octal, parse_layers, unescaped

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.syscont.layers import Layers


def find_layers(rootfs: int) -> Layers | None:
    """The layers of the overlay whose root the descriptor `rootfs` is; None where it lies deeper in one."""
    path = os.readlink(f"/proc/self/fd/{rootfs}")
    options = _super_options(rootfs, path)
    if options is None:
        return None
    layers = parse_layers(options)
    try:
        _resolve(layers, path)
        layers.magics = frozenset(_magic(layer) for layer in layers.paths())
    except OSError as error:
        # As with Podman's, which unmounts what it has ID-mapped itself: then nobody needs them.
        layers.missing = f"{error.filename!r} cannot be opened: {reason(error)}"
    return layers


def is_bare(fd: int) -> bool:
    """Whether nothing is mounted below the mountpoint whose descriptor `fd` is."""
    below = os.readlink(f"/proc/self/fd/{fd}") + "/"
    with open("/proc/self/mountinfo", "rb") as file:
        return not any(octal(os.fsdecode(line).split(" ")[4]).startswith(below) for line in file)


def _super_options(fd: int, path: str) -> str | None:
    """The last field of the mount's line in mountinfo, if `path` is where the whole of an overlay is mounted."""
    number = _mount_id(fd)
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields = os.fsdecode(line).rstrip("\n").split(" ")
            if fields[0] == number:
                kind, _, options = fields[fields.index("-", 6) + 1 :]
                whole = fields[3] == "/" and octal(fields[4]) == path and path != "/"
                return options if kind == "overlay" and whole else None
    return None


def _mount_id(fd: int) -> str:
    with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
        return next(line.split()[1] for line in file if line.startswith("mnt_id:"))


def _resolve(layers: Layers, mountpoint: str) -> None:
    """Make all paths absolute and free of escapes. Raises FileNotFoundError."""
    layers.upper = _found(layers.upper, "/") if layers.upper else ""
    layers.work = _found(layers.work, "/") if layers.work else ""
    relative = [name for name in (*layers.lower, *layers.data) if not name.startswith("/")]
    base = _base(relative, layers.upper or mountpoint) if relative else "/"
    layers.lower = [_found(name, base) for name in layers.lower]
    layers.data = [_found(name, base) for name in layers.data]


def _base(relative: list[str], start: str) -> str:
    """The directory that `relative` names were given in: the closest one above `start` where all of them are.

    Docker, containerd and Podman change there to keep a long list of layers below a page.
    """
    directory = start
    while directory != "/":
        directory = os.path.dirname(directory)
        if all(_spelling(name, directory) for name in relative):
            return directory
    raise FileNotFoundError(2, os.strerror(2), relative[0])


def _found(name: str, base: str) -> str:
    path = _spelling(name, base)
    if not path:
        raise FileNotFoundError(2, os.strerror(2), name)
    return path


def _spelling(name: str, base: str) -> str:
    """The absolute path of the layer `name`, which is told with or without escapes; "" where it is not there."""
    for spelling in (name, unescaped(name)):
        path = os.path.join(base, spelling)
        if os.path.isdir(path):
            return path
    return ""


def _magic(path: str) -> int:
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return fstatfs(fd)
    finally:
        os.close(fd)
