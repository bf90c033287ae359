"""`make demo-systemd`: a whole Debian boots, systemd as pid 1, in a container that has no privilege on the host.

Shows the boot as it happens, asks systemd how it is, and switches the machine off from inside. Fails unless the boot
ends in `running`, every process is nobody on the host, and `run` tells the poweroff as success.
"""

import json
import os
import pathlib
import pty
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

SOURCE = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(SOURCE))

from tools import debian_rootfs, own_daemon, show  # noqa: E402 - found only now that the path says where

PROGRAM = str(SOURCE / "bin/sysvisor-runc")
NAME = f"demo-systemd-{os.getpid()}"
BOOTED = {"running", "degraded", "maintenance"}
BOOT_LIMIT = 60.0
ESCAPE = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\r")


def make_bundle(directory: pathlib.Path) -> None:
    """A bundle that boots: Debian as root file system, systemd as its process, a terminal as its console."""
    with show.Waiting("a Debian root file system with systemd (cached; half a minute the first time)"):
        debian_rootfs.unpack("systemd", directory / "rootfs")
    subprocess.run([PROGRAM, "spec", "--bundle", str(directory)], check=True)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["root"]["readonly"] = False
    config["process"] |= {"args": ["/sbin/init", "--show-status=true"], "terminal": True, "cwd": "/"}
    path.write_text(json.dumps(config, indent=4))


def inside(*command: str) -> str:
    """What a program in the container prints; empty if it cannot be run."""
    done = subprocess.run(
        [PROGRAM, "exec", NAME, *command], check=False, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    return done.stdout.strip()


def relay(master: int) -> None:
    """Copy the console to standard output until the machine is off; without its colours if that is no terminal."""
    plain = not os.isatty(1)
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:  # EIO: the last holder of the console has closed it
            return
        if not data:
            return
        os.write(1, ESCAPE.sub(b"", data) if plain else data)


def wait_for_boot(process: subprocess.Popen[bytes]) -> str:
    """What systemd calls its state once booting is over."""
    deadline = time.monotonic() + BOOT_LIMIT
    said = ""
    while process.poll() is None and time.monotonic() < deadline:
        said = inside("systemctl", "is-system-running")
        if said in BOOTED:
            return said
        time.sleep(0.1)
    return said or "never came up"


def units(*selection: str) -> list[str]:
    """The names of the units that systemctl lists."""
    listed = inside("systemctl", "list-units", "--plain", "--no-legend", *selection)
    return [line.split()[0] for line in listed.splitlines()]


def judge(findings: show.Findings, state: str) -> None:
    """Ask the booted machine how it is."""
    failed = units("--failed")
    show.heading("the machine, from inside")
    findings.check("systemctl is-system-running", state == "running", state)
    findings.check("systemctl list-units --failed", not failed, ", ".join(failed) or "none")
    findings.check("systemd-detect-virt", True, inside("systemd-detect-virt"))
    services = units("--type=service", "--state=running")
    findings.check("services that run", "systemd-journald.service" in services, "\n".join(services))
    last = inside("journalctl", "-b", "-n1", "-o", "cat")
    findings.check("journal", bool(last), last)
    findings.check("uid_map", True, " ".join(inside("cat", "/proc/1/uid_map").split()))
    show.heading("the machine, from the host")
    pid = subprocess.run([PROGRAM, "state", NAME], check=True, capture_output=True, text=True)
    owner = pathlib.Path(f"/proc/{json.loads(pid.stdout)['pid']}").stat().st_uid
    findings.check("systemd's user id", owner != 0, str(owner))


def boot(directory: pathlib.Path) -> int:
    """Boot, look, switch off; 0 if all went as it should."""
    findings = show.Findings()
    master, slave = pty.openpty()
    show.heading("sysvisor-runc run: the boot")
    began = time.monotonic()
    command = [PROGRAM, "run", "--bundle", str(directory), NAME]
    with subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True) as process:
        os.close(slave)
        reader = threading.Thread(target=relay, args=(master,), daemon=True)
        reader.start()
        state = wait_for_boot(process)
        took = time.monotonic() - began
        if state in BOOTED:
            judge(findings, state)
            print(show.paint(f"    booted in {took:.1f} s", "dim"))
            show.heading("systemctl poweroff")
            inside("systemctl", "poweroff")
        else:
            findings.check("systemctl is-system-running", False, state)
        try:
            process.wait(BOOT_LIMIT)
        except subprocess.TimeoutExpired:
            subprocess.run([PROGRAM, "delete", "--force", NAME], check=False)
        reader.join(5)
    show.heading("sysvisor-runc run: the end")
    findings.check("exit code", process.returncode == 0, str(process.returncode))
    return 1 if findings.failed else 0


def main() -> int:
    if os.geteuid() != 0:
        print("make demo-systemd makes namespaces, id ranges and cgroups: run it as root", file=sys.stderr)
        return 1
    directory = pathlib.Path(tempfile.mkdtemp(prefix="sysvisor-demo-", dir="/var/tmp"))
    directory.chmod(0o755)
    try:
        with own_daemon.OwnDaemon(directory):
            make_bundle(directory)
            return boot(directory)
    except RuntimeError as error:
        print(f"make demo-systemd: {error}", file=sys.stderr)
        return 1
    finally:
        subprocess.run([PROGRAM, "delete", "--force", NAME], check=False, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
