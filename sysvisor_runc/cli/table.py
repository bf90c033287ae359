"""The commands and their flags: one table for the parser, `--help`, the man pages and the shell completions.

Plain tuples, because every command loads this module: a tuple constant costs nothing but its bytes. Long texts that
only people read live in `manual.py`. Imports nothing.
"""

from __future__ import annotations

# (name, one-letter name, kind, placeholder, default, help). A flag without help is accepted but not shown.
Flag = tuple[str, str, str, str, str, str]
# (summary, arguments as shown, least number of arguments, most (-1: any), flags end at the first argument, flags)
Command = tuple[str, str, int, int, bool, tuple[Flag, ...]]

BOOL = "bool"
TEXT = "text"
CHOICE = "choice"  # the placeholder lists what is allowed: a|b
NUMBER = "number"
DURATION = "duration"  # Go's notation: 5s, 1m30s, 250ms
TEXTS = "texts"  # may be given several times
NUMBERS = "numbers"

REPEATABLE = (TEXTS, NUMBERS)

GLOBALS: tuple[Flag, ...] = (
    ("debug", "", BOOL, "", "", "log what the runtime does, and print tracebacks of its own faults"),
    ("log", "", TEXT, "PATH", "", "append log messages to this file; without, warnings go to standard error"),
    ("log-format", "", CHOICE, "text|json", "text", "format of log messages"),
    ("root", "", TEXT, "PATH", "", "directory that holds the state of containers; should be on a tmpfs (default:"
     " /run/sysvisor-runc, or $XDG_RUNTIME_DIR/sysvisor-runc for an ordinary user)"),
    ("systemd-cgroup", "", BOOL, "", "", "let systemd make the cgroups; cgroupsPath then reads SLICE:PREFIX:NAME"),
    ("rootless", "", CHOICE, "true|false|auto", "auto", "go on where the user may not manage cgroups"),
    ("criu", "", TEXT, "PATH", "criu", "the criu program that checkpoints and restores"),
    ("no-sysvisor-fs", "", BOOL, "", "", "do without sysvisor-fs: the container sees the kernel's own /proc and /sys"),
    ("no-syscont", "", BOOL, "", "", "make the container exactly as its config.json says, not as a system container"),
    ("only-syscont", "", BOOL, "", "", "refuse a container whose image or annotations ask for a plain one"),
    ("help", "h", BOOL, "", "", "show help"),
    ("version", "v", BOOL, "", "", "show the version and what was built in"),
)  # fmt: skip

_BUNDLE: Flag = ("bundle", "b", TEXT, "DIR", "",
                 "bundle directory, which holds config.json (default: current directory)")  # fmt: skip
_CONSOLE_SOCKET: Flag = ("console-socket", "", TEXT, "PATH", "",
                         "AF_UNIX socket to send the master end of the terminal to")  # fmt: skip
_PIDFD_SOCKET: Flag = ("pidfd-socket", "", TEXT, "PATH", "", "AF_UNIX socket to send a pidfd of the process to")
_PID_FILE: Flag = ("pid-file", "", TEXT, "PATH", "", "write the process id to this file")
_DETACH: Flag = ("detach", "d", BOOL, "", "", "return as soon as the process runs")
_NO_SUBREAPER: Flag = ("no-subreaper", "", BOOL, "", "", "do not adopt the orphans of the container's processes")
_NO_PIVOT: Flag = ("no-pivot", "", BOOL, "", "",
                   "move the root instead of pivoting, for a rootfs on a ramdisk; weaker")  # fmt: skip
_NO_NEW_KEYRING: Flag = ("no-new-keyring", "", BOOL, "", "", "keep the caller's session keyring")
_PRESERVE_FDS: Flag = ("preserve-fds", "", NUMBER, "N", "0",
                       "hand on N more file descriptors after standard error and $LISTEN_FDS")  # fmt: skip
_FORMAT: Flag = ("format", "f", CHOICE, "table|json", "table", "output format")

# How a detached container is looked after.
_SUPERVISED: tuple[Flag, ...] = (
    ("no-supervisor", "", BOOL, "", "", "leave a detached container to itself, as runc does: no supervisor is started"),
    ("restart", "", TEXT, "POLICY", "",
     "start a detached container again when it ends: no, on-failure[:N], always or unless-stopped (default: no)"),
    ("restart-delay", "", DURATION, "DURATION", "", "time before the first restart; it doubles (default: 100ms)"),
)  # fmt: skip

# What a system container can be told on the command line because config.json has no place for it.
_SYSCONT: tuple[Flag, ...] = (
    ("set-credential", "", TEXTS, "ID:VALUE", "", "pass a credential to the container's init"),
    ("load-credential", "", TEXTS, "ID:PATH", "", "pass the content of a file as a credential to the container's init"),
    ("uid-shift", "", CHOICE, "idmap|chown|none", "idmap",
     "how the rootfs comes to belong to the container's root; chown changes the files themselves"),
    ("cpuset-from-quota", "", BOOL, "", "", "narrow the CPUs to as many as the quota is worth, for nproc's sake"),
)  # fmt: skip

_CREATE = (_BUNDLE, _CONSOLE_SOCKET, _PIDFD_SOCKET, _PID_FILE, _NO_PIVOT, _NO_NEW_KEYRING, _PRESERVE_FDS, *_SYSCONT)

_EXEC = (
    _CONSOLE_SOCKET,
    _PIDFD_SOCKET,
    ("cwd", "", TEXT, "DIR", "", "working directory in the container"),
    ("env", "e", TEXTS, "NAME=VALUE", "", "set an environment variable"),
    ("tty", "t", BOOL, "", "", "give the process a terminal"),
    ("user", "u", TEXT, "USER[:GROUP]", "", "user, and group, of the process: ids, or names of the container's own"),
    ("additional-gids", "g", NUMBERS, "GID", "", "add a supplementary group"),
    ("process", "p", TEXT, "FILE", "", "read the process object of the runtime specification from this file"),
    _DETACH,
    _PID_FILE,
    ("process-label", "", TEXT, "LABEL", "", "SELinux label of the process"),
    ("apparmor", "", TEXT, "PROFILE", "", "AppArmor profile of the process"),
    ("no-new-privs", "", BOOL, "", "", "deny the process new privileges on execve"),
    ("cap", "c", TEXTS, "CAP", "", "add a capability"),
    _PRESERVE_FDS,
    ("cgroup", "", TEXTS, "[CONTROLLER,...:]PATH", "", "run in this existing cgroup below the container's"),
    ("ignore-paused", "", BOOL, "", "", "allow it in a paused container; the process runs once that is resumed"),
    ("no-subreaper", "", BOOL, "", "", ""),
)  # fmt: skip

_UPDATE = (
    ("resources", "r", TEXT, "FILE", "", "read linux.resources from this file, or - for standard input;"
     " the flags for single values are then ignored"),
    ("blkio-weight", "", NUMBER, "N", "", "block I/O weight, 10 to 1000"),
    ("cpu-period", "", TEXT, "USEC", "", "length of a CPU period; 0 for the system's default"),
    ("cpu-quota", "", TEXT, "USEC", "", "CPU time allowed in each period"),
    ("cpu-burst", "", TEXT, "USEC", "", "unused CPU time that may be saved up for a burst"),
    ("cpu-share", "", TEXT, "N", "", "CPU shares, relative to other containers"),
    ("cpu-rt-period", "", TEXT, "USEC", "", "length of a realtime CPU period; 0 for the system's default"),
    ("cpu-rt-runtime", "", TEXT, "USEC", "", "realtime CPU time allowed in each period"),
    ("cpu-idle", "", TEXT, "0|1", "", "1 to run only when nothing else wants to (SCHED_IDLE)"),
    ("cpuset-cpus", "", TEXT, "LIST", "", "CPUs to use, such as 0-2,7"),
    ("cpuset-mems", "", TEXT, "LIST", "", "memory nodes to use"),
    ("memory", "", TEXT, "BYTES", "", "memory limit; k, m, g suffixes are understood, -1 means none"),
    ("memory-reservation", "", TEXT, "BYTES", "", "memory that reclaim tries to leave alone"),
    ("memory-swap", "", TEXT, "BYTES", "", "limit of memory and swap together; -1 means none"),
    ("kernel-memory", "", TEXT, "BYTES", "", ""),
    ("kernel-memory-tcp", "", TEXT, "BYTES", "", ""),
    ("pids-limit", "", NUMBER, "N", "", "number of processes allowed; -1 means any"),
    ("l3-cache-schema", "", TEXT, "SCHEMA", "", "Intel RDT schema for the L3 cache"),
    ("mem-bw-schema", "", TEXT, "SCHEMA", "", "Intel RDT schema for memory bandwidth"),
)  # fmt: skip

# CRIU's options that checkpoint and restore share.
_CRIU = (
    ("image-path", "", TEXT, "DIR", "", "directory of the image files"),
    ("work-path", "", TEXT, "DIR", "", "directory of criu's work files and logs"),
    ("tcp-established", "", BOOL, "", "", "allow open TCP connections"),
    ("ext-unix-sk", "", BOOL, "", "", "allow unix sockets that lead out of the container"),
    ("shell-job", "", BOOL, "", "", "allow a process that belongs to a terminal session outside"),
    ("lazy-pages", "", BOOL, "", "", "bring memory pages over when they are first used (userfaultfd)"),
    ("file-locks", "", BOOL, "", "", "allow file locks"),
    ("manage-cgroups-mode", "", CHOICE, "soft|full|strict|ignore", "", "how cgroups are brought back (default: soft)"),
    ("empty-ns", "", TEXTS, "NAMESPACE", "", "make this namespace but leave it empty"),
    ("auto-dedup", "", BOOL, "", "", "drop memory pages from older images once they are superseded"),
)  # fmt: skip

_CHECKPOINT = (
    *_CRIU,
    ("parent-path", "", TEXT, "DIR", "", "image directory of an earlier pre-dump, relative to --image-path"),
    ("leave-running", "", BOOL, "", "", "let the container run on"),
    ("tcp-skip-in-flight", "", BOOL, "", "", "leave out TCP connections that are still being set up"),
    ("link-remap", "", BOOL, "", "", "link deleted files back where possible"),
    ("status-fd", "", NUMBER, "FD", "-1", "have criu write a zero byte here once --lazy-pages is ready"),
    ("page-server", "", TEXT, "ADDRESS:PORT", "", "send memory pages to this page server"),
    ("pre-dump", "", BOOL, "", "", "save memory only, and let the container run on"),
)  # fmt: skip

_RESTORE = (
    _CONSOLE_SOCKET,
    _BUNDLE,
    _DETACH,
    _PID_FILE,
    _NO_SUBREAPER,
    _NO_PIVOT,
    *_CRIU,
    ("lsm-profile", "", TEXT, "TYPE:NAME", "", "security profile to restore with"),
    ("lsm-mount-context", "", TEXT, "CONTEXT", "", "security context of mounts to restore with"),
)  # fmt: skip

_SPEC = (
    ("bundle", "b", TEXT, "DIR", "", "where to write config.json (default: current directory)"),
    ("rootless", "", BOOL, "", "", "for a container that an ordinary user starts"),
    ("id-map", "m", TEXT, "'UID GID SIZE'", "", "map SIZE ids from 0 in the container to UID and GID on the host"),
)  # fmt: skip

_DOCTOR = (("json", "", BOOL, "", "", "print the findings as JSON"),)

_INSTALL = (
    ("docker", "", BOOL, "", "", "Docker: /etc/docker/daemon.json"),
    ("containerd", "", BOOL, "", "", "containerd's CRI plugin: /etc/containerd/config.toml"),
    ("podman", "", BOOL, "", "", "Podman: a file in /etc/containers/containers.conf.d"),
    ("crio", "", BOOL, "", "", "CRI-O: a file in /etc/crio/crio.conf.d"),
    ("default", "", BOOL, "", "", "make it the engine's default runtime as well"),
    ("uninstall", "", BOOL, "", "", "take back what was told"),
    ("dry-run", "", BOOL, "", "", "show the change and do nothing"),
    ("config", "", TEXT, "FILE", "", "edit this file instead; for one engine at a time"),
)  # fmt: skip

_ID = "<container-id>"

COMMANDS: dict[str, Command] = {
    "attach": ("use the terminal of a detached container", _ID, 1, 1, False, ()),
    "checkpoint": ("save a running container to disk", _ID, 1, 1, False, _CHECKPOINT),
    "create": ("create a container, which waits for start", _ID, 1, 1, False, _CREATE),
    "delete": ("delete a container and all that it holds", _ID, 1, 1, False,
               (("force", "f", BOOL, "", "", "kill the container first if it runs; succeed if there is none"),)),
    "doctor": ("look at what this host supports, and say how to get what is missing", "", 0, 0, False, _DOCTOR),
    "events": ("show what a container uses and what happens to it", f"[{_ID}]", 0, 1, False,
               (("interval", "", DURATION, "DURATION", "5s", "time between two reports of usage"),
                ("stats", "", BOOL, "", "", "report usage once and return"),
                ("all", "a", BOOL, "", "", "show what happens to every container; usage only if --interval is given"),
                ("since", "", NUMBER, "SEQ", "", "begin with the events after this number, which the supervisor keeps;"
                 " usage only if --interval is given"),
                ("format", "f", CHOICE, "json|table", "json", "output format"))),
    "exec": ("run a process in a container", f"{_ID} <command> [argument...] | -p FILE {_ID}", 1, -1, True, _EXEC),
    "features": ("show what this runtime supports, as JSON", "", 0, 0, False, ()),
    "help": ("show help on a command", "[command]", 0, 1, False, ()),
    "init": ("", "", 0, -1, True, ()),
    "install": ("tell a container engine about this runtime, or take it back", "", 0, 0, False, _INSTALL),
    "kill": ("send a signal, by default the one that stops it, to the container's init", f"{_ID} [signal]", 1, 2, True,
             (("all", "a", BOOL, "", "", ""),)),
    "list": ("list the containers under --root", "", 0, 0, False,
             (_FORMAT, ("quiet", "q", BOOL, "", "", "show container ids only"))),
    "logs": ("show what a detached container has written to its terminal", _ID, 1, 1, False,
             (("follow", "f", BOOL, "", "", "go on with what it writes, until it ends"),
              ("since", "", TEXT, "MOMENT", "", "leave out what is older: RFC 3339, or how long ago (10m)"))),
    "pause": ("suspend all processes of a container", _ID, 1, 1, False, ()),
    "ps": ("show the processes of a container", f"{_ID} [ps option...]", 1, -1, True, (_FORMAT,)),
    "restore": ("bring a container back from a checkpoint", _ID, 1, 1, False, _RESTORE),
    "resume": ("let a paused container go on", _ID, 1, 1, False, ()),
    "run": ("create a container and start it", _ID, 1, 1, False,
            (*_CREATE, _DETACH, *_SUPERVISED, ("keep", "", BOOL, "", "", "keep the container when its init has exited"),
             _NO_SUBREAPER)),
    "spec": ("write a config.json to start from", "", 0, 0, False, _SPEC),
    "start": ("start the process of a created container", _ID, 1, 1, False, ()),
    "state": ("show the state of a container, as JSON", _ID, 1, 1, False, ()),
    "supervisor": ("look after the detached containers under --root", "", 0, 0, False,
                   (("status", "", BOOL, "", "", "show what the supervisor that runs is doing, as JSON"),
                    ("stop", "", BOOL, "", "", "end the supervisor that runs; the containers run on"),
                    ("linger", "", DURATION, "DURATION", "", "end after so long with nothing to look after"),
                    ("resident", "", BOOL, "", "", ""),
                    ("launcher", "", CHOICE, "respawn|keep", "", ""))),
    "update": ("change the resource limits of a container", _ID, 1, 1, False, _UPDATE),
    "version": ("", "", 0, 0, False, ()),
    "wait": ("wait until a container has ended, and print its exit code", _ID, 1, 1, False, ()),
}  # fmt: skip


def shown() -> list[str]:
    """The commands that people are told of, in the order of help."""
    return [verb for verb, command in COMMANDS.items() if command[0]]
