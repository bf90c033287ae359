"""`make demo`: a system container on a busybox bundle.

On a terminal: a shell inside. Elsewhere: a tour that looks at the container from inside and outside, prints what it
sees, and fails if anything does not hold.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))

from tools import borrow, busybox_rootfs, own_daemon, show  # noqa: E402 - found only now that the path says where

PROGRAM = str(SOURCE / "bin/sysvisor-runc")
NAME = f"demo-{os.getpid()}"
RANGE = 65536
MEMORY = 256 << 20
QUOTA, PERIOD = 150_000, 100_000  # one and a half CPUs
# What a machine says of itself, asked on both sides. procps and coreutils, not busybox, which asks the kernel.
ASKED = (
    ("nproc",),
    ("free", "-m"),
    ("uptime",),
    ("cat", "/proc/loadavg"),
    ("sysctl", "kernel.hostname", "net.core.somaxconn"),
)
SOMAXCONN = "1234"

# Runs inside, as pid 1. Each finding is a line `name<TAB>value`; the last one asks for a look from outside.
TOUR = r"""
say() { printf '%s\t%s\n' "$1" "$2"; }
say uid_map "$(cat /proc/self/uid_map)"
say hostname "$(hostname)"
say capabilities "$(sed -n 's/^CapEff:[[:space:]]*//p' /proc/self/status) $(cat /proc/sys/kernel/cap_last_cap)"
ps -o pid,comm | sed 1d | while read -r pid name; do say process "$pid $name"; done
for top in /sys/fs/cgroup /sys/fs/cgroup/memory /sys/fs/cgroup/pids /sys/fs/cgroup/unified; do
    [ -e $top/cgroup.procs ] || continue
    if mkdir $top/inner 2>/tmp/err && [ -e $top/inner/cgroup.procs ]; then say cgroup "made $top/inner"
    else say cgroup-failed "$top: $(cat /tmp/err)"; fi
    rmdir $top/inner 2>/dev/null
done
if mount -t tmpfs -o size=1m tmpfs /mnt 2>/tmp/err; then say tmpfs "$(grep ' /mnt ' /proc/mounts)"; umount /mnt
else say tmpfs-failed "$(cat /tmp/err)"; fi
if hostname renamed 2>/tmp/err; then say renamed "$(hostname)"; else say renamed-failed "$(cat /tmp/err)"; fi
say outside please
read -r line || exit 0
"""


def make_bundle(directory: pathlib.Path, terminal: bool) -> None:
    """A bundle: busybox as root file system, and the `config.json` that `sysvisor-runc spec` writes."""
    with show.Waiting("a root file system from busybox, and sysvisor-runc spec"):
        busybox_rootfs.make(directory / "rootfs")
        borrow.programs(directory / "rootfs", "free", "nproc", "sysctl", "uptime")
        subprocess.run([PROGRAM, "spec", "--bundle", str(directory)], check=True)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["root"]["readonly"] = False
    config["process"]["terminal"] = terminal
    config["linux"]["resources"] = {
        **config["linux"].get("resources", {}),
        "memory": {"limit": MEMORY},
        "cpu": {"quota": QUOTA, "period": PERIOD},
    }
    config["process"]["args"] = ["/bin/sh", "-l"] if terminal else ["/bin/sh", "-c", TOUR]
    path.write_text(json.dumps(config, indent=4))


def command(directory: pathlib.Path) -> list[str]:
    return [PROGRAM, *flags(), "run", "--cpuset-from-quota", "--bundle", str(directory), NAME]


def flags() -> list[str]:
    """Global flags: more of them can be given in DEMOFLAGS."""
    return os.environ.get("DEMOFLAGS", "").split()


def shell(directory: pathlib.Path) -> int:
    """Hand the terminal to a shell in the container; its exit code."""
    show.heading("You are root of a small machine now. Ctrl-D leaves it.")
    print(f"    Look around: cat /proc/self/uid_map; ps; mount.   From another terminal: {PROGRAM} list\n", flush=True)
    return subprocess.run(command(directory), check=False).returncode


def output(*arguments: str) -> str:
    """What a command of the runtime prints."""
    return subprocess.run([PROGRAM, *flags(), *arguments], check=True, stdout=subprocess.PIPE, text=True).stdout


class Seen:
    """What the tour said: the first value of each name in `facts`, all of them in `lists`."""

    def __init__(self) -> None:
        self.facts: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}

    def add(self, line: str) -> None:
        name, _, value = line.rstrip("\n").partition("\t")
        self.facts.setdefault(name, value)
        self.lists.setdefault(name, []).append(value)


def host_view() -> tuple[int, str]:
    """From outside: the host pid of the container's init, and the host uid that owns it."""
    pid = int(json.loads(output("state", NAME))["pid"])
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    uid = next(line.split()[1] for line in status.splitlines() if line.startswith("Uid:"))
    return pid, uid


def tour(directory: pathlib.Path) -> int:
    """Run the tour and judge what it says; 0 if everything holds."""
    show.heading("sysvisor-runc run: inside, as pid 1")
    seen = Seen()
    findings = show.Findings()
    with subprocess.Popen(command(directory), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        for line in process.stdout:
            seen.add(line)
            if "outside" in seen.facts:
                break
        judge_inside(findings, seen)
        if "outside" in seen.facts:
            judge_outside(findings, seen)
            if "--no-sysvisor-fs" not in flags():
                judge_machine(findings)
        process.stdin.close()
    show.heading("sysvisor-runc run: the end")
    findings.check("exit code", process.returncode == 0, str(process.returncode))
    listed = output("list", "-q").split()
    findings.check("nothing is left of it", NAME not in listed, "sysvisor-runc list does not know it any more")
    return 1 if findings.failed else 0


def judge_inside(findings: show.Findings, seen: Seen) -> None:
    """What a machine of one's own looks like from inside."""
    facts = seen.facts
    first, host, size = (int(number) for number in facts.get("uid_map", "0 0 0").split())
    findings.check(
        "/proc/self/uid_map",
        first == 0 and host != 0 and size >= RANGE,
        f"{first} {host} {size}: root here is {host} outside",
    )
    findings.check("hostname", bool(facts.get("hostname")), facts.get("hostname", "none"))
    processes = seen.lists.get("process", [])
    findings.check("processes: init is pid 1", bool(processes) and processes[0] == "1 sh", "\n".join(processes))
    have, last = facts.get("capabilities", "0 0").split()
    full = (1 << (int(last) + 1)) - 1
    findings.check("capabilities of root: all of them", int(have, 16) == full, f"{have} (0 to {last})")
    made = seen.lists.get("cgroup", [])
    failed = seen.lists.get("cgroup-failed", [])
    findings.check("mkdir in the cgroup mount", bool(made) and not failed, "\n".join(made + failed))
    findings.check("mount -t tmpfs", "tmpfs" in facts, facts.get("tmpfs", facts.get("tmpfs-failed", "")))
    findings.check("hostname renamed", "renamed" in facts, facts.get("renamed", facts.get("renamed-failed", "")))


def judge_outside(findings: show.Findings, seen: Seen) -> None:
    """The same container from the host: an unprivileged process."""
    show.heading("the same container from outside")
    pid, uid = host_view()
    mapped = seen.facts["uid_map"].split()[1]
    findings.check("host uid that owns init", uid == mapped != "0", f"pid {pid} belongs to uid {uid}")
    own = os.readlink("/proc/self/ns/user")
    theirs = os.readlink(f"/proc/{pid}/ns/user")
    findings.check("user namespace", own != theirs, f"{theirs}, the host's is {own}")
    findings.check("host's hostname unchanged", os.uname().nodename != "renamed", os.uname().nodename)


def said(*argv: str) -> str:
    """What a command prints, here."""
    done = subprocess.run(argv, check=False, capture_output=True, text=True)
    return (done.stdout + done.stderr).rstrip("\n")


def inside(*argv: str) -> str:
    """What a command prints in the container."""
    return said(PROGRAM, *flags(), "exec", NAME, *argv)


def judge_machine(findings: show.Findings) -> None:
    """The same questions here and there: a machine of its own, with 256 MiB and one and a half CPUs."""
    show.heading(f"{MEMORY >> 20} MiB and {QUOTA / PERIOD:g} CPUs: what the two machines say of themselves")
    host_somaxconn = said("sysctl", "-n", "net.core.somaxconn")
    inside("sysctl", "-q", "-w", f"net.core.somaxconn={SOMAXCONN}")
    answers = [(" ".join(argv), said(*argv), inside(*argv)) for argv in ASKED]
    show.side_by_side(("host", "container"), answers)
    total = memory_total(answers[1][2])
    findings.check("free: total is the limit", 0 < total <= MEMORY >> 20, f"{total} MiB")
    cpus = inside("grep", "-c", "^processor", "/proc/cpuinfo")
    wanted = min(-(-QUOTA // PERIOD), os.cpu_count() or 1)
    findings.check("nproc and /proc/cpuinfo agree", answers[0][2] == cpus == str(wanted), f"{answers[0][2]} and {cpus}")
    up = float((inside("cat", "/proc/uptime").split() or ["inf"])[0])
    findings.check("uptime is the container's", up < 300, f"{up:.2f} s, the host's {host_uptime():.0f} s")
    own = inside("sysctl", "-n", "net.core.somaxconn")
    findings.check("its sysctl is its own", own == SOMAXCONN, f"somaxconn is {own}")
    now = said("sysctl", "-n", "net.core.somaxconn")
    findings.check("the host's is what it was", now == host_somaxconn, f"somaxconn is {now}")


def memory_total(text: str) -> int:
    """The total in what `free -m` prints; 0 where it prints something else."""
    words = next((line.split() for line in text.splitlines() if line.startswith("Mem:")), [])
    return int(words[1]) if len(words) > 1 else 0


def host_uptime() -> float:
    return float(pathlib.Path("/proc/uptime").read_text().split()[0])


def main() -> int:
    if os.geteuid() != 0:
        print("make demo makes namespaces, id ranges and cgroups: run it as root (sudo make demo)", file=sys.stderr)
        return 1
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-demo-"))
    directory.chmod(0o755)  # the container's root has to get through to its rootfs
    try:
        with own_daemon.OwnDaemon(directory):
            terminal = sys.stdin.isatty() and sys.stdout.isatty()
            make_bundle(directory, terminal)
            return shell(directory) if terminal else tour(directory)
    finally:
        subprocess.run([PROGRAM, *flags(), "delete", "--force", NAME], check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
