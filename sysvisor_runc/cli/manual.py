"""The long texts about each command, for `--help` and the man pages. Loaded only when somebody asks for them.

Flags are not described here but in `table.py`; a test sees to it that no command is forgotten.
"""

TITLE = "Open Container Initiative runtime"

OVERVIEW = """\
sysvisor-runc runs system containers: containers that behave like small machines, in which systemd,
Docker and Kubernetes work unmodified, and which yet have no privilege on the host, because each one
lives in a user namespace of its own. It takes the command line of runc, so that whatever drives runc
drives it too, and with --no-syscont it is a plain runtime after the OCI runtime specification.

A container is made from a bundle: a directory with a config.json, which `sysvisor-runc spec` writes,
and a root file system. To start one:

    # sysvisor-runc run [ -b bundle ] <container-id>

The id is yours to choose; it must be unique among the containers under the same --root."""

# verb → (description, example, exit status)
PAGES: dict[str, tuple[str, str, str]] = {
    "attach": (
        "Connects this terminal to that of a container which `run --detach` has started with process.terminal\n"
        "set. Ctrl-P Ctrl-Q leaves the container alone again. Several may be attached; who does not read misses\n"
        "output, which `logs` still has.",
        "# sysvisor-runc attach web",
        "That of the container's init once it has ended, 0 after Ctrl-P Ctrl-Q.",
    ),
    "checkpoint": (
        "Saves the processes of a running container to image files by means of criu, and stops them unless\n"
        "told otherwise. `restore` brings them back.",
        "# sysvisor-runc checkpoint --image-path /var/lib/images/web web",
        "",
    ),
    "create": (
        "Makes the container that config.json in the bundle describes: namespaces, cgroup, root file system.\n"
        "Its process is set up but not run; `start` lets it go. As a system container, unless --no-syscont is\n"
        "given, it gets a user namespace with ids of its own and the changes that an init system needs. The\n"
        "global flags given here are kept with the container and hold for later commands.",
        "# sysvisor-runc create -b /srv/web web\n# sysvisor-runc start web",
        "",
    ),
    "delete": (
        "Removes a stopped container: its cgroups, its range of ids, its directory under --root. A container\n"
        "that was created but never started is stopped first; a running one only with --force.",
        "# sysvisor-runc delete web",
        "",
    ),
    "doctor": (
        "Looks at this host, by trying things where that leaves no trace: namespaces, ID-mapped mounts on each\n"
        "kind of file system, overlays, cgroups, ranges of ids, and which container engines know of this\n"
        "runtime. What is missing comes with what to do about it.",
        "# sysvisor-runc doctor",
        "0, or 1 if something is missing that system containers cannot do without.",
    ),
    "events": (
        "Prints one JSON object per line: what the container uses at every interval, and a message whenever the\n"
        "kernel kills a process of it for want of memory, both as runc does. Where a supervisor looks after the\n"
        "state root, also what it tells: starts, exits, restarts, pauses and changes, each with a number that never\n"
        "comes again. With --since such a number the messages after it come first, so that a reader that was away\n"
        "misses nothing. Whoever reads too slowly is told how many were dropped. Ends when the container does;\n"
        "with --all, never: that starts a supervisor where there is none, so that it hears of every container.",
        "# sysvisor-runc events --stats web\n# sysvisor-runc events --all --format table",
        "",
    ),
    "exec": (
        "Runs one more process in a running container, with the user, environment, capabilities and limits of\n"
        "config.json save where a flag says otherwise, or wholly as the process object given with -p says.\n"
        "Flags end at the container id: what follows it belongs to the command.",
        "# sysvisor-runc exec -t web sh -c 'ls -l /'",
        "That of the process (unless -d is given), 128 plus the signal that killed it, or 255 if it could not\nbe run.",
    ),
    "features": (
        "Prints what this runtime can do, in the form of features.md of the runtime specification. It speaks of\n"
        "the program, not of the kernel that it happens to run on.",
        "# sysvisor-runc features",
        "",
    ),
    "help": ("Shows the overview, or the help of one command.", "# sysvisor-runc help run", ""),
    "install": (
        "Adds this runtime to the configuration of container engines, under the name sysvisor-runc and with\n"
        "the path by which it was called. What the file was before is kept beside it with the ending\n"
        ".before-sysvisor-runc; doing it twice changes nothing, and --uninstall takes out what was put in.",
        "# sysvisor-runc install --docker --dry-run\n# sysvisor-runc install --docker\n# systemctl restart docker",
        "",
    ),
    "kill": (
        "Sends a signal, by name or number, to the init process of the container. Without one that is SIGTERM, or\n"
        "what an init system takes for a request to shut down: SIGRTMIN+3 for systemd, SIGUSR2 for busybox. Flags\n"
        "end at the container id.",
        "# sysvisor-runc kill web KILL",
        "",
    ),
    "list": (
        "Lists the containers under --root with process id, status, bundle, time of creation and owner, and as\n"
        "soon as a supervisor looks after one of them, with exit code, restarts and uptime. What another runtime\n"
        "keeps there is left out, with a warning.",
        "# sysvisor-runc --root /run/other list --format json",
        "",
    ),
    "logs": (
        "Prints what a container started by `run --detach` with process.terminal set has written to its\n"
        "terminal, as far as it was kept: the last megabyte at most. The output of one without a terminal went\n"
        "where that of `run` went.",
        "# sysvisor-runc logs -f --since 10m web",
        "",
    ),
    "pause": (
        "Freezes the cgroup of the container, and with it every process in there.",
        "# sysvisor-runc pause web",
        "",
    ),
    "ps": (
        "Shows the container's processes as `ps -ef` does, with their ids on the host. What follows the container\n"
        "id is handed to the host's ps(1), whose lines about the container's processes are shown then; they must\n"
        "have a column PID.",
        "# sysvisor-runc ps web -eo pid,user,args",
        "",
    ),
    "restore": (
        "Brings a container back from image files that `checkpoint` made.",
        "# sysvisor-runc restore --image-path /var/lib/images/web -b /srv/web web",
        "That of the container's init (unless -d is given).",
    ),
    "resume": ("Thaws what `pause` froze.", "# sysvisor-runc resume web", ""),
    "run": (
        "Does what `create`, `start` and, once the container's init has exited, `delete` do. Signals are passed\n"
        "on to the container; SIGINT and SIGTERM ask an init system to shut down.",
        "# mkdir -p web/rootfs && cd web\n"
        "# docker export $(docker create busybox) | tar -C rootfs -xf -\n"
        "# sysvisor-runc spec\n"
        "# sysvisor-runc run web",
        "That of the container's init (unless -d is given), 128 plus the signal that killed it, or 1 if the\n"
        "container could not be started. A system container with an init system that has been switched off: 0;\n"
        "that wants to be started again (`reboot` inside): 133.",
    ),
    "spec": (
        "Writes a config.json that runs sh in a directory named rootfs beside it. It is meant to be edited, and\n"
        "an existing file is never overwritten. Ids need no attention: without a mapping each container gets a\n"
        "range of its own.",
        "# sysvisor-runc spec -b /srv/web --id-map '200000 200000 65536'",
        "",
    ),
    "start": ("Runs the process of a container that `create` has made.", "# sysvisor-runc start web", ""),
    "state": (
        "Prints id, process id, status, bundle, root file system, time of creation and annotations.",
        "# sysvisor-runc state web",
        "",
    ),
    "supervisor": (
        "Looks after the containers that `run --detach` starts under this --root: records how they end, starts\n"
        "them again by their --restart policy, keeps their terminals, publishes events. `run --detach` starts one\n"
        "by itself, which ends when there is nothing left to do; this command is for service managers and the\n"
        "curious. Its end, by whatever, harms no container, and its successor takes over.",
        "# sysvisor-runc supervisor --status",
        "",
    ),
    "update": (
        "Changes limits of a container while it exists. Values not mentioned stay as they are. The file for -r\n"
        "has the form of linux.resources in config.json, such as\n"
        "\n"
        '    {"memory": {"limit": 536870912}, "cpu": {"shares": 512}, "pids": {"limit": 200}}',
        "# sysvisor-runc update --memory 512m --pids-limit 200 web",
        "",
    ),
    "wait": (
        "Returns when the container's init has ended, at once if it has already, and prints its exit code: 128\n"
        "plus the signal that killed it, 255 with a warning where nobody knows.",
        "# sysvisor-runc wait web",
        "",
    ),
}

PLAIN_STATUS = "0 on success, 1 otherwise."

EXIT_STATUS = """\
0 on success, 1 on failure, 3 for an unknown command. `run` and `restore` exit with the status of the container's
init, `exec` with that of its process, or 255 if it could not be run. A failure is told in one line on standard error,
and in the file given with `--log`."""

ENVIRONMENT = (
    ("SYSVISOR_SYSCONT_MODE", "TRUE, FALSE, which is the same as `--no-syscont`, or ONLY: `--only-syscont`."),
    ("XDG_RUNTIME_DIR", "Holds the state of containers for an ordinary user, unless `--root` is given."),
    (
        "LISTEN_FDS",
        "Number of sockets, from file descriptor 3, that are handed on to the container's init (socket activation), "
        "with LISTEN_FDNAMES, if LISTEN_PID is this process.",
    ),
    (
        "NOTIFY_SOCKET",
        "Where systemd listens: it gets what the container tells it at /run/notify/notify.sock, its own NOTIFY_SOCKET.",
    ),
    (
        "SYSVISOR_RUNC_LOOP",
        "asyncio or uvloop: what relays a terminal in the foreground. uvloop is faster once it runs and slower to "
        "start; where it is not installed, asyncio is used.",
    ),
)

FILES = (
    ("config.json", "In the bundle: describes the container. See the OCI runtime specification."),
    ("/run/sysvisor-runc", "State of the containers of root, one directory each."),
    ("/etc/subuid, /etc/subgid", "Ranges of ids from which containers get theirs, those of user sysvisor."),
)
