"""What the configuration files of container engines say about a runtime: text in, text out.

Each function gives the text that tells of our runtime at `program`, or no longer tells of it. Pure. Loaded by
`install` and `doctor` only.
"""

from __future__ import annotations

from sysvisor_runc.errors import SysvisorError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # (text of the file, path of the runtime, make it the default, take it back) → text
    Edit = Callable[[str, str, bool, bool], str]

NAME = "sysvisor-runc"
_SHIM = "io.containerd.runc.v2"
_BEGIN = f"# BEGIN {NAME}: `{NAME} install --uninstall` removes what follows\n"
_OURS = f"# Written by `{NAME} install`, which replaces it as a whole.\n"
_END = f"# END {NAME}\n"


class Engine:
    """Attributes:

    config: the file to edit.
    edit: makes its new text.
    restart: what makes the engine read it.
    use: how a container gets the runtime then.
    """

    __slots__ = ("config", "edit", "restart", "use")

    def __init__(self, config: str, edit: Edit, restart: str, use: str) -> None:
        self.config = config
        self.edit = edit
        self.restart = restart
        self.use = use


def edit_docker(text: str, program: str, default: bool, uninstall: bool) -> str:
    """daemon.json: an entry of `runtimes`, and `default-runtime`."""
    import json

    try:
        config = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise SysvisorError(f"not JSON: {error}") from error
    runtimes = config.get("runtimes", {}) if isinstance(config, dict) else None
    if not isinstance(runtimes, dict):
        raise SysvisorError("not a configuration of Docker: an object with `runtimes` as an object was expected")
    before = json.dumps(config)
    if uninstall:
        runtimes.pop(NAME, None)
        if not runtimes:
            config.pop("runtimes", None)
        if config.get("default-runtime") == NAME:
            del config["default-runtime"]
    else:
        given = runtimes.get(NAME)
        arguments = {"runtimeArgs": given["runtimeArgs"]} if isinstance(given, dict) and "runtimeArgs" in given else {}
        config["runtimes"] = {**runtimes, NAME: {"path": program, **arguments}}
        if default:
            config["default-runtime"] = NAME
    if json.dumps(config) == before:
        return text  # as it was, to the last blank
    return json.dumps(config, indent=4, ensure_ascii=False) + "\n" if config else ""


def edit_containerd(text: str, program: str, default: bool, uninstall: bool) -> str:
    """config.toml of format 2 (containerd 1.x) or 3: a marked block of tables at its end."""
    rest = _without_block(text)
    if uninstall:
        return "" if rest.strip() == "version = 2" else rest
    config = _parsed(rest)
    version = config.get("version", 2 if not rest.strip() else 1)
    if version not in (2, 3):
        raise SysvisorError(
            f"its format is {version}, and 2 or 3 is needed",
            hint="`containerd config migrate` prints it in the newest format",
        )
    plugin = '"io.containerd.grpc.v1.cri"' if version == 2 else '"io.containerd.cri.v1.runtime"'
    containerd = _table(config, "plugins", plugin.strip('"'), "containerd")
    tables = f"plugins.{plugin}.containerd.runtimes"
    block = f'[{tables}.{NAME}]\n  runtime_type = "{_SHIM}"\n'
    block += f'[{tables}.{NAME}.options]\n  BinaryName = "{_quoted(program)}"\n'
    first = str(containerd.get("default_runtime_name", "runc"))
    if _table(containerd, "runtimes", first, "options").get("SystemdCgroup") is True:
        block += "  SystemdCgroup = true\n"  # all of a node's runtimes use one cgroup driver, the kubelet's
    if first == "runc" and "runc" not in _table(containerd, "runtimes"):
        # Any table of runtimes replaces the built-in one; without its default the CRI does not come up (1.6).
        block += f'[{tables}.runc]\n  runtime_type = "{_SHIM}"\n'
    if default:
        block = f'[plugins.{plugin}.containerd]\n  default_runtime_name = "{NAME}"\n{block}'
    head = rest if rest.strip() else "version = 2\n"
    result = f"{head.rstrip()}\n\n{_BEGIN}{block}{_END}"
    try:
        _parsed(result)
    except SysvisorError as error:
        hint = f"set default_runtime_name in [plugins.{plugin}.containerd] by hand, and leave --default out"
        raise SysvisorError(f"cannot add to it: {error}", hint=hint if default else None) from error
    return result


def edit_podman(text: str, program: str, default: bool, uninstall: bool) -> str:
    """A file of ours in containers.conf.d."""
    _check_ours(text)
    if uninstall:
        return ""
    chosen = f'[engine]\nruntime = "{NAME}"\n\n' if default else ""
    return f'{_OURS}{chosen}[engine.runtimes]\n{NAME} = ["{_quoted(program)}"]\n'


def edit_crio(text: str, program: str, default: bool, uninstall: bool) -> str:
    """A file of ours in crio.conf.d."""
    _check_ours(text)
    if uninstall:
        return ""
    chosen = f'[crio.runtime]\ndefault_runtime = "{NAME}"\n\n' if default else ""
    return (
        f"{_OURS}{chosen}[crio.runtime.runtimes.{NAME}]\n"
        f'runtime_path = "{_quoted(program)}"\nruntime_type = "oci"\nruntime_root = "/run/{NAME}"\n'
        'allowed_annotations = ["io.kubernetes.cri-o.userns-mode"]\n'
    )


ENGINES = {
    "docker": Engine(
        "/etc/docker/daemon.json", edit_docker, "systemctl restart docker", f"docker run --runtime {NAME} …"
    ),
    "containerd": Engine(
        "/etc/containerd/config.toml",
        edit_containerd,
        "systemctl restart containerd",
        f"a RuntimeClass with `handler: {NAME}`; ctr run --runc-binary",
    ),
    "podman": Engine(
        f"/etc/containers/containers.conf.d/50-{NAME}.conf", edit_podman, "", f"podman --runtime {NAME} run …"
    ),
    "crio": Engine(
        f"/etc/crio/crio.conf.d/50-{NAME}.conf",
        edit_crio,
        "systemctl restart crio",
        f"a RuntimeClass with `handler: {NAME}`",
    ),
}


def _check_ours(text: str) -> None:
    if text and not text.startswith(_OURS):
        raise SysvisorError(f"not a file that `{NAME} install` wrote", hint="name a file of its own with --config")


def _without_block(text: str) -> str:
    begin, end = text.find(_BEGIN), text.find(_END)
    if begin < 0:
        return text
    if end < begin:
        raise SysvisorError(f"it has a line {_BEGIN.strip()!r} and no {_END.strip()!r} after it")
    rest = text[:begin].rstrip("\n") + "\n" + text[end + len(_END) :]
    return rest if rest.strip() else ""


def _table(config: object, *names: str) -> dict[str, object]:
    """A table of tables, empty where it is not there."""
    for name in names:
        config = config.get(name) if isinstance(config, dict) else None
    return config if isinstance(config, dict) else {}


def _parsed(text: str) -> dict[str, object]:
    import tomllib

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SysvisorError(f"not TOML: {error}") from error


def _quoted(text: str) -> str:
    """For a basic string of TOML."""
    return text.replace("\\", "\\\\").replace('"', '\\"')
