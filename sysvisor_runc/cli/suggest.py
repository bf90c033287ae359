"""What somebody who mistyped a name probably meant. Loaded only to word an error."""

import difflib

# Flags of container engines, for those who come from one: what does the same here.
_ENGINES = {
    "i": "standard input is always passed on",
    "it": "standard input is always passed on; for a terminal say -t to exec, or process.terminal in config.json",
    "ti": "standard input is always passed on; for a terminal say -t to exec, or process.terminal in config.json",
    "t": "a terminal is asked for in config.json: process.terminal",
    "rm": "run without --detach removes the container by itself",
    "name": "the name is the argument: the container's id",
    "privileged": "what a container may do stands in config.json: process.capabilities, linux.resources.devices",
    "volume": "volumes stand in config.json: mounts",
    "p": "ports are published by an engine, or by the network given in config.json: linux.namespaces",
}


def nearest(word: str, known: list[str]) -> str | None:
    """The name in `known` most like `word`, or None if none is close."""
    matches = difflib.get_close_matches(word, known, 1, 0.7)
    return matches[0] if matches else None


def of_engines(flag: str, verb: str) -> str:
    """What to say here instead of an engine's flag; nothing where it is none, or the verb starts nothing."""
    return _ENGINES.get(flag, "") if verb in ("run", "create", "exec") else ""
