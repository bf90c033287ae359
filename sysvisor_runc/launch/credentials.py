"""Credentials for a system container's init (systemd.exec(5), "Credentials"), from the command line."""

from __future__ import annotations

from sysvisor_runc.errors import UsageError, reason

_SIZE_MAX = 1 << 20  # systemd's own limit for all of them together


def read_credentials(given: list[str], files: list[str]) -> dict[str, bytes]:
    """Name to data, from `ID:VALUE` and `ID:PATH` words.

    Raises:
        UsageError: a malformed word, an unreadable file, or more than 1 MiB together.
    """
    found: dict[str, bytes] = {}
    for word in given:
        name, value = _split(word, "--set-credential")
        found[name] = value.encode("utf-8", "surrogateescape")
    for word in files:
        name, path = _split(word, "--load-credential")
        try:
            with open(path, "rb") as file:
                found[name] = file.read(_SIZE_MAX + 1)
        except OSError as error:
            raise UsageError(f"--load-credential: read {path!r}: {reason(error)}") from error
    if sum(map(len, found.values())) > _SIZE_MAX:
        raise UsageError(f"credentials are larger than {_SIZE_MAX} bytes together")
    return found


def _split(word: str, flag: str) -> tuple[str, str]:
    name, colon, rest = word.partition(":")
    if not colon or not name or "/" in name or name in (".", "..") or len(name) > 255:
        raise UsageError(f"{flag}: {word!r} is not of the form ID:...", hint="an ID is a file name")
    return name, rest
