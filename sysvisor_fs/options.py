"""The daemon's command line. Read by hand: argparse costs 13 ms, which a reader would wait for after a crash."""

from __future__ import annotations

import os

from sysvisor_runc.errors import UsageError

USAGE = """\
usage: sysvisor-fs [OPTIONS]              serve, in the foreground
       sysvisor-fs [OPTIONS] stop         end the daemon; what is mounted waits for the next one
       sysvisor-fs [OPTIONS] stop --all   end everything: no container is served any more
       sysvisor-fs [OPTIONS] remount ID…  give containers back what was aborted in the kernel; --all: all of them
       sysvisor-fs [OPTIONS] status       what is served, and what it costs; --json

Shows each system container its own /proc and /sys values.

options
  --run-dir DIR          sockets, lock and registrations; root's alone, mode 0700 (/run/sysvisor)
  --mountpoint DIR       where the daemon's own mount namespace has its mounts (/var/lib/sysvisorfs)
  --log FILE             append messages to FILE rather than to standard error
  --log-format FORMAT    text or json (text)
  --debug                say what is done, and where an error comes from
  --tcp PORT             serve gRPC on 127.0.0.1:PORT too, for runtimes of 2019
  --tree MODULE          serve the tree of MODULE, which has a function build_tree (sysvisor_fs.nodes.tree)
  --help, --version

environment
  SYSVISOR_FS_RUN_DIR, SYSVISOR_FS_MOUNTPOINT, SYSVISOR_FS_TREE   instead of the options
  SYSVISOR_FS_STUCK_SECONDS   how long one request may keep the FUSE thread before the daemon is replaced (5)
  SYSVISOR_FS_REMOUNT    auto or manual (auto): what happens when a connection is lost; manual: `remount` is waited for
  SYSVISOR_FS_RECOVERY   journal, resend or both (both): how requests of a daemon that died are answered
"""

_VALUED = {
    "--run-dir": "run_dir", "--mountpoint": "mountpoint", "--log": "log", "--log-format": "log_format",
    "--tcp": "tcp", "--tree": "tree",
}  # fmt: skip
_RUN_DIR_MAX = 107 - len("/sysvisorfs.sock")  # sun_path of unix(7), without its zero
COMMANDS = ("stop", "status", "remount", "holder", "gateway")


class Options:
    """What was asked for; `words` are what is not an option of ours, `argv` the options to start another one with."""

    def __init__(self) -> None:
        self.run_dir = os.environ.get("SYSVISOR_FS_RUN_DIR") or "/run/sysvisor"
        self.mountpoint = os.environ.get("SYSVISOR_FS_MOUNTPOINT") or "/var/lib/sysvisorfs"
        self.log = ""
        self.log_format = "text"
        self.tree = os.environ.get("SYSVISOR_FS_TREE") or "sysvisor_fs.nodes.tree"
        self.tcp = ""
        self.debug = self.help = self.version = False
        self.words: list[str] = []

    @property
    def command(self) -> str:
        """One of COMMANDS, or empty to serve. Holder and gateway are processes of ours."""
        return self.words[0] if self.words else ""

    @property
    def tcp_port(self) -> int:
        """0: not over TCP."""
        return int(self.tcp or "0")

    def argv(self) -> list[str]:
        """These options again, for another process of ours."""
        words = [f"{flag}={getattr(self, field)}" for flag, field in _VALUED.items() if getattr(self, field)]
        return [*words, "--debug"] if self.debug else words


def parse(argv: list[str]) -> Options:
    """Read a command line.

    Raises:
        UsageError: it says something that we do not know.
    """
    options = Options()
    words = list(argv)
    while words:
        word = words.pop(0)
        flag, equals, value = word.partition("=")
        if not word.startswith("-"):
            options.words = [word, *words]
            break
        if flag in _VALUED:
            if not equals and not words:
                raise UsageError(f"{flag} needs a value")
            setattr(options, _VALUED[flag], value if equals else words.pop(0))
        elif word in ("--debug", "--help", "--version"):
            setattr(options, word[2:], True)
        elif word == "-h":
            options.help = True
        else:
            raise UsageError(f"unknown option {word}", hint="sysvisor-fs --help lists them")
    return _checked(options)


def _checked(options: Options) -> Options:
    if options.command and options.command not in COMMANDS:
        raise UsageError(f"unknown command {options.command!r}", hint="sysvisor-fs --help lists them")
    if options.log_format not in ("text", "json"):
        raise UsageError(f"--log-format {options.log_format!r}: expected text or json")
    if options.tcp and not (options.tcp.isascii() and options.tcp.isdigit() and 0 < int(options.tcp) < 65536):
        raise UsageError(f"--tcp {options.tcp!r}: expected a port number")
    # Another process of ours may be started from another directory.
    options.run_dir, options.mountpoint = os.path.abspath(options.run_dir), os.path.realpath(options.mountpoint)
    if len(os.fsencode(options.run_dir)) > _RUN_DIR_MAX:
        raise UsageError(f"run directory {options.run_dir!r}: expected a path of at most {_RUN_DIR_MAX} bytes")
    options.log = os.path.abspath(options.log) if options.log else ""
    return options
