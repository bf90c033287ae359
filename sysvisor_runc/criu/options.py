"""What the command line asks of a checkpoint or a restore, as the options that criu takes."""

from __future__ import annotations

import os

from sysvisor_runc.criu.rpc import criu_pb2 as messages
from sysvisor_runc.criu.session import CriuError
from sysvisor_runc.errors import SysvisorError, UsageError, reason
from sysvisor_runc.kernel.namespaces import CLONE_NEWNET

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Spec

DEFAULT_IMAGES = "checkpoint"
# A file of its own for containers, or what the annotation says; "" there: none at all.
_CONFIG_FILE = "/etc/criu/runc.conf"
_CONFIG_ANNOTATION = "org.criu.config"
_LOG_LEVEL = 4


class CriuOptions:
    """What both verbs have in common.

    Attributes:
        program: criu, as given with --criu; "" to look for it.
        images: directory of the image files, absolute.
        work: directory of criu's log and work files; `images` unless given.
        empty_namespaces: flags of the namespaces that are made but left empty.
    """

    def __init__(self, program: str, images: str, work: str) -> None:
        self.program = program
        self.images = os.path.abspath(images or DEFAULT_IMAGES)
        self.work = os.path.abspath(work) if work else self.images
        self.cgroups = "default"
        self.tcp_established = False
        self.ext_unix_sk = False
        self.shell_job = False
        self.lazy_pages = False
        self.file_locks = False
        self.auto_dedup = False
        # The network's devices are not ours: who connected the container does so again.
        self.empty_namespaces = CLONE_NEWNET

    def message(self, spec: Spec, images_fd: int, log_file: str) -> messages.Options:
        """The options for criu; it opens `images_fd` through our /proc/PID/fd (its peer's, as the socket says)."""
        options = messages.Options(
            images_dir_fd=images_fd,
            log_level=_LOG_LEVEL,
            log_file=log_file,
            notify_scripts=True,
            manage_cgroups=True,
            manage_cgroups_mode=self.cgroups.upper(),
            tcp_established=self.tcp_established,
            ext_unix_sk=self.ext_unix_sk,
            shell_job=self.shell_job,
            lazy_pages=self.lazy_pages,
            file_locks=self.file_locks,
            auto_dedup=self.auto_dedup,
            empty_ns=self.empty_namespaces,
            orphan_pts_master=True,
        )
        config = (spec.get("annotations") or {}).get(_CONFIG_ANNOTATION, _CONFIG_FILE)
        if config:
            options.config_file = config
        return options


def add_empty(options: CriuOptions, names: list[str]) -> None:
    """Take in --empty-ns. Raises UsageError."""
    for name in names:
        if name != "network":
            raise UsageError(f"--empty-ns: namespace {name!r} is not supported", hint="network is")


def open_directory(path: str, *, make: bool) -> int:
    """A descriptor of the directory, made 0700 where missing if `make`.

    Raises:
        SysvisorError: it cannot be made or opened.
    """
    try:
        if make:
            os.makedirs(path, 0o700, exist_ok=True)
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SysvisorError(f"open {path!r}: {reason(error)}", hint="--image-path and --work-path name it") from error


def explain(error: CriuError, directory: str, log_file: str) -> CriuError:
    """The failure with the first error in criu's log."""
    path = f"{directory}/{log_file}"
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.readall().decode("utf-8", "replace")
    except OSError:
        return error
    # That its own limit on open files cannot be raised is no reason to fail.
    line = next((line for line in text.splitlines() if " Error " in line and "RLIMIT_NOFILE" not in line), "")
    _, _, what = line.partition("Error ")
    what = what.partition("): ")[2] or what
    detail = f": {what.strip()}" if what else ""
    return CriuError(f"{error.message}{detail}", hint=f"criu's log is {path}")
