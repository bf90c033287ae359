"""The layers of a mounted overlay, read from what /proc/self/mountinfo tells of it (overlayfs.rst, "Multiple lower
layers"). Pure.
"""

from __future__ import annotations

from sysvisor_runc.syscont.idmap import is_known, why_not

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# What changes how layers are read or written goes over to another mount of them. `index` and `nfs_export` do not: they
# tie an upper layer to one mount of it, and so does the uuid.
_KEPT = {"fsync", "metacopy", "redirect_dir", "userxattr", "verity", "volatile", "xino"}
_KEPT |= {"context", "fscontext", "defcontext", "rootcontext"}
_SINCE = (5, 19)  # ovl_check_layer took ID-mapped layers from there on


class Layers:
    """Attributes:

    lower: paths, the topmost first; data: those of layers that only hold the data of metacopy files.
    upper, work: "" for a mount without them, which is read-only.
    options: what another mount of the same layers needs, as (key, value).
    magics: statfs types of all layers; filled by whoever looks.
    missing: why not all of them can be reached, "" where they can.
    """

    __slots__ = ("data", "lower", "magics", "missing", "options", "upper", "work")

    def __init__(
        self,
        lower: Sequence[str] = (),
        data: Sequence[str] = (),
        upper: str = "",
        work: str = "",
        options: Sequence[tuple[str, str | None]] = (),
        magics: Sequence[int] = (),
    ) -> None:
        self.lower = list(lower)
        self.data = list(data)
        self.upper = upper
        self.work = work
        self.options = list(options)
        self.magics = frozenset(magics)
        self.missing = ""

    def paths(self) -> list[str]:
        """Every layer that is read."""
        return [*self.lower, *self.data, *([self.upper] if self.upper else [])]


def parse_layers(options: str) -> Layers:
    """The layers in the super block options of an overlay, the last field of its line in mountinfo.

    Names stay as they were given to mount(2): relative, or with a backslash before a colon; see `unescaped`.
    """
    layers = Layers()
    for option in options.split(","):
        key, equals, value = option.partition("=")
        if key == "lowerdir":
            _split_lower(value, layers)
        elif key == "lowerdir+":
            layers.lower.append(octal(value))
        elif key == "datadir+":
            layers.data.append(octal(value))
        elif key == "upperdir":
            layers.upper = octal(value)
        elif key == "workdir":
            layers.work = octal(value)
        elif key in _KEPT:
            layers.options.append((key, octal(value) if equals else None))
    return layers


def read_only(layers: Layers) -> Layers:
    """The same for a mount that nobody writes to: the upper layer is the topmost lower one."""
    options = [(key, value) for key, value in layers.options if key not in ("fsync", "volatile")]
    upper = [layers.upper] if layers.upper else []
    return Layers([*upper, *layers.lower], layers.data, options=options, magics=tuple(layers.magics))


def _split_lower(value: str, layers: Layers) -> None:
    """`a:b::c`: two layers, then one of data. A colon in a name has an escaped backslash before it, or is octal."""
    target, name = layers.lower, ""
    for part in value.split(":"):
        name += part
        if _ends_escaped(name):
            name += ":"
        elif name:
            target.append(octal(name))
            name = ""
        else:
            target = layers.data


def _ends_escaped(name: str) -> bool:
    count = 0
    while name.endswith("\\134"):
        name, count = name[:-4], count + 1
    return count % 2 == 1


def octal(text: str) -> str:
    """Undo the kernel's escapes: `\\040` is a space (seq_file.c, mangle_path)."""
    first, *rest = text.split("\\")
    parts = [chr(int(part[:3], 8)) + part[3:] if len(part) > 2 else part for part in rest]
    return first + "".join(parts)


def unescaped(name: str) -> str:
    """A name without the backslashes that mount(2) wants before colons and backslashes (up to Linux 6.4 they show)."""
    result, escaped = "", False
    for letter in name:
        if letter == "\\" and not escaped:
            escaped = True
        else:
            result, escaped = result + letter, False
    return result


def why_not_layers(layers: Layers, kernel: tuple[int, int]) -> str | None:
    """None where the layers can be mounted ID-mapped as far as is known, else the reason, for a person."""
    if layers.missing:
        return f"its layer {layers.missing}"
    if kernel < _SINCE:
        return f"overlayfs takes ID-mapped layers from Linux {_SINCE[0]}.{_SINCE[1]} on"
    for magic in sorted(layers.magics):
        problem = why_not(magic, kernel, None)
        if problem and is_known(magic):
            return f"its layers: {problem}"
    return None
