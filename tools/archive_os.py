"""`os` as a short command needs it, in place of the standard library's, which takes longer to load than a verb to run.

Nearly all of `os` is the builtin module `posix`; the rest is worth two milliseconds, most of them for abstract base
classes that nobody here asks for. This file is compiled into the archive's head by `tools/install.py` and runs before
anything has imported `os`. Whoever asks for something that is not here gets it: the standard library's module is loaded
then, and this one has all that it has from there on.
"""

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType


class _Environ(dict[str, str]):
    """`os.environ` to read from; the first change brings the standard library's, and is made there."""

    def __setitem__(self, name: str, value: str) -> None:
        _whole().environ[name] = value

    def __delitem__(self, name: str) -> None:
        del _whole().environ[name]

    def pop(self, name: str, *default: str | None) -> str | None:  # type: ignore[override]
        value: str | None = _whole().environ.pop(name, *default)
        return value


# types.ModuleType, without importing types.
class _Os(type(sys)):  # type: ignore[misc]
    """The module."""

    def __getattr__(self, name: str) -> object:
        if name[:2] == "__":  # the import system asks whether a module has a __spec__, a __path__
            raise AttributeError(name)
        return getattr(_whole(), name)


def _whole() -> "ModuleType":
    """The standard library's os, which from now on is what everybody has."""
    if sys.modules["os"] is _os:
        del sys.modules["os"]
        import os

        _os.__dict__.update({name: value for name, value in os.__dict__.items() if name[:2] != "__"})
    return sys.modules["os"]


def _fsencode(filename: "str | bytes") -> bytes:
    filename = posix.fspath(filename)
    return filename.encode(_ENCODING, _ERRORS) if isinstance(filename, str) else filename


def _fsdecode(filename: "str | bytes") -> str:
    filename = posix.fspath(filename)
    return filename.decode(_ENCODING, _ERRORS) if isinstance(filename, bytes) else filename


_ENCODING = sys.getfilesystemencoding()
_ERRORS = sys.getfilesystemencodeerrors()
_os = sys.modules["os"] = _Os("os")
_os.__dict__.update({name: value for name, value in posix.__dict__.items() if name[:2] != "__"})
_os.__dict__.update(
    environ=_Environ({_fsdecode(name): _fsdecode(value) for name, value in posix.environ.items()}),
    fsencode=_fsencode,
    fsdecode=_fsdecode,
    error=OSError,
    name="posix",
    sep="/",
)
# It imports os itself, hence now.
import posixpath  # noqa: E402

_os.path = sys.modules["os.path"] = posixpath
