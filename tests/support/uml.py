"""user-mode-linux on this machine's own files: a cgroup layout that the machine does not have, for one script.

Nothing is downloaded and nothing installed inside: the host's files are the read-only lower layer of a throw-away
overlay. One CPU, no time namespaces, and ID-mapped mounts only of what the kernel of the package can map.
"""

import os
import pathlib
import platform
import shutil
import signal
import subprocess
import time

import pytest

SOURCE = pathlib.Path(__file__).resolve().parents[2]

# The guest's init. The kernel does not pass $1… on: what it needs is written into the script.
_INIT = r"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t tmpfs -o size=100%,mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
busybox insmod /usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t devtmpfs devtmpfs dev; mount -t tmpfs tmpfs tmp
mkdir -p dev/pts dev/shm; mount -t devpts devpts dev/pts; mount -t tmpfs tmpfs dev/shm; mount -t tmpfs tmpfs run
mkdir -p .{results}; mount -t hostfs -o {results} none .{results}
# The tmpfs on /tmp may hide the checkout.
[ -e .{source}/bin ] || { mkdir -p .{source}; mount -t hostfs -o {source} none .{source}; }
mkdir .old; pivot_root . .old; cd /; umount -l /.old
if [ {version} = v2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir /sys/fs/cgroup/init; echo $$ >/sys/fs/cgroup/init/cgroup.procs
else
    mount -t tmpfs cgroup /sys/fs/cgroup
    for name in cpu,cpuacct cpuset memory devices freezer pids blkio net_cls net_prio hugetlb none,name=systemd; do
        mkdir /sys/fs/cgroup/$name
        mount -t cgroup -o $name cgroup /sys/fs/cgroup/$name 2>/dev/null || rmdir /sys/fs/cgroup/$name
    done
fi
sh {results}/script >{results}/output 2>&1 </dev/null
echo $? >{results}/status
sync; echo o >/proc/sysrq-trigger; sleep 10
"""

# Instead of the part from the cgroups on: systemd mounts all else itself, and boots to nothing but the script.
_SYSTEMD = r"""
mount -o remount,mode=755 /run
if [ {version} = hybrid ]; then
    mount -t tmpfs -o mode=755 tmpfs /sys/fs/cgroup; mkdir /sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd,xattr systemd /sys/fs/cgroup/systemd
fi
mkdir -p /run/systemd/system
cat >/run/systemd/system/script.target <<'END'
[Unit]
DefaultDependencies=no
Requires=script.service
END
cat >/run/systemd/system/script.service <<'END'
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
Environment=PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
ExecStart=-sh -c 'sh {results}/script >{results}/output 2>&1; echo $$? >{results}/status'
ExecStart=sh -c 'sync; echo o >/proc/sysrq-trigger'
END
exec /lib/systemd/systemd --unit=script.target
"""


class Running:
    """A guest that was started; what it prints goes to files in `directory`."""

    def __init__(self, process: subprocess.Popen[bytes], directory: pathlib.Path) -> None:
        self._process = process
        self._directory = directory
        self._began = time.monotonic()

    def ended(self, limit: float) -> bool:
        """Whether it has come to its end, which it does at the latest `limit` seconds after its start."""
        if time.monotonic() > self._began + limit:
            self.kill()
        return self._process.poll() is not None

    def wait(self, limit: float) -> str:
        """Its output, once it has ended."""
        try:
            self._process.wait(limit)
        except subprocess.TimeoutExpired:
            pass
        finally:
            self.kill()
        return self.output()

    def output(self) -> str:
        """What the script has printed; it must have ended well."""
        console = (self._directory / "console").read_text(errors="replace")
        output, status = self._directory / "output", self._directory / "status"
        assert output.exists(), console[-2000:]
        text = output.read_text(errors="replace")
        assert status.exists(), f"no end of the guest: {text}{console[-2000:]}"
        assert status.read_text().strip() == "0", text
        return text

    def kill(self) -> None:
        """End it with all of its processes, which would run on without their kernel."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def lacking(*, systemd: bool = False) -> str:
    """Why there can be no guest here, or none with systemd as its pid 1; empty: there can."""
    if shutil.which("linux.uml") is None or shutil.which("busybox") is None or platform.machine() != "x86_64":
        return "no user-mode-linux; to force it: apt-get install user-mode-linux busybox-static"
    if systemd and not pathlib.Path("/lib/systemd/systemd").exists():
        return "no systemd installed here; to force it: apt-get install systemd"
    return ""


def start(
    directory: pathlib.Path, version: str, script: str, *boot: str, memory: str = "1G", systemd: bool = False
) -> Running:
    """Have a shell script run under cgroup `version` ("v1", "v2"), in a guest with files of its own in `directory`.

    Ask first what is `lacking`.

    `boot` are more words for the kernel's command line. With `systemd` that is pid 1, and the versions that it knows
    are "v2" and "hybrid".
    """
    text = _INIT
    if systemd:
        text = _INIT.partition("if [ {version}")[0] + _SYSTEMD
    init = directory / "init"
    init.write_text(
        text.replace("{results}", str(directory)).replace("{version}", version).replace("{source}", str(SOURCE))
    )
    init.chmod(0o755)
    (directory / "script").write_text(script)
    arguments = [f"mem={memory}", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"]
    quiet = ["con=null", "con0=null,fd:1", "ssl=null", "panic=-1", "quiet"]
    # Where it keeps its pid and control socket: else below the home directory, for ever if it is killed.
    own = (f"uml_dir={directory}/", "umid=guest")
    with open(directory / "console", "wb") as console:
        process = subprocess.Popen(
            ["linux.uml", *arguments, *quiet, *own, *boot],
            env=os.environ | _preload(directory),
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    return Running(process, directory)


def run(directory: pathlib.Path, version: str, script: str, *, memory: str = "1G", timeout: float = 100) -> str:
    """The output of such a script, which must end well; skips without user-mode-linux."""
    if reason := lacking():
        pytest.skip(reason)
    return start(directory, version, script, memory=memory).wait(timeout)


def _preload(directory: pathlib.Path) -> dict[str, str]:
    """What the kernel's process needs in its environment on a processor that is newer than the kernel."""
    if shutil.which("gcc") is None:
        return {}
    library = directory / "fullstate.so"
    source = pathlib.Path(__file__).with_name("programs") / "fullstate.c"
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-o", library, source], check=True)
    return {"LD_PRELOAD": str(library)}
