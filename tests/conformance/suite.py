"""What the suite of opencontainers/runc needs around it: its test programs, images, stand-ins, and the runtime.

Made into the checkout (programs, images) or a directory of the run (all else); nothing of it is kept in this project.
"""

import os
import pathlib
import shutil
import subprocess
import tempfile

import pytest

from tests.support import criu

ROOT = pathlib.Path(__file__).resolve().parents[2]
HELPERS = ("recvtty", "sd-helper", "seccompagent", "fs-idmap", "pidfd-kill", "remap-rootfs", "key_label")
ARCH = {"x86_64": "amd64", "aarch64": "arm64"}
# What the runtime is told in each mode. `runc` is the checkout's own, built there: it shows what the machine allows.
MODES = {"plain": "--no-syscont --no-sysvisor-fs", "syscont": "--no-sysvisor-fs", "runc": ""}
# The suite starts its receiver of terminals in the background and does not wait until it listens.
WRAPPER = """#!/bin/sh
i=0
while [ -d "${{CONSOLE_SOCKET%/*}}" ] && [ ! -S "$CONSOLE_SOCKET" ] && [ $i -lt 100 ]; do sleep 0.01; i=$((i + 1)); done
exec {runtime} "$@"
"""
# One end of a veth pair stands in where the kernel has no dummy device.
IP = """#!/bin/sh
all="$*"
case "$all" in
"link add "*" type dummy") {ip} "$@" 2>/dev/null || exec {ip} ${{all% dummy}} veth peer name "p$3" ;;
*) exec {ip} "$@" ;;
esac
"""


def prepare(source: pathlib.Path) -> None:
    """Make what the suite would download or have built: helpers and images."""
    helpers = source / "tests/cmd/_bin"
    helpers.mkdir(exist_ok=True)
    for name in HELPERS:
        if not (helpers / name).exists():
            command = ["go", "build", "-tags", "seccomp", "-o", str(helpers), f"./tests/cmd/{name}"]
            subprocess.run(command, cwd=source, check=True)
    data = source / "tests/integration/testdata"
    # The suite's names; what is inside need not be compressed for tar to read it.
    arch = ARCH[os.uname().machine]
    if not (data / f"busybox-{arch}.tar.xz").exists():
        _busybox(data / f"busybox-{arch}.tar.xz")
    if not (data / f"debian-{arch}.tar.xz").exists():
        with tempfile.TemporaryDirectory() as directory:
            made = f"{directory}/debian.tar"
            subprocess.run(["mmdebstrap", "--variant=essential", "--include=procps", "bookworm", made], check=True)
            shutil.move(made, data / f"debian-{arch}.tar.xz")


def _busybox(archive: pathlib.Path) -> None:
    users = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/home:/bin/false\n"
    with tempfile.TemporaryDirectory() as directory:
        root = pathlib.Path(directory)
        for name in ("bin", "etc", "home", "root", "tmp", "usr/bin", "usr/sbin", "var", "dev", "lib"):
            (root / name).mkdir(parents=True)
        shutil.copy("/bin/busybox", root / "bin/busybox")
        for applet in subprocess.run(
            ["/bin/busybox", "--list"], check=True, capture_output=True, text=True
        ).stdout.split():
            if applet != "busybox":
                (root / "bin" / applet).hardlink_to(root / "bin/busybox")
        (root / "usr/bin/env").symlink_to("../../bin/env")
        (root / "etc/passwd").write_text(users)
        (root / "etc/group").write_text("root:x:0:\ntty:x:5:\nnobody:x:65534:\n")
        (root / "etc/hosts").touch()
        root.chmod(0o755)
        subprocess.run(["tar", "-cf", archive, "-C", root, "."], check=True)


def environment(source: pathlib.Path, mode: str, work: pathlib.Path) -> dict[str, str]:
    """The suite's: the runtime behind a wrapper, the stand-ins first on PATH."""
    ours = os.environ.get("SYSVISOR_RUNC") or ROOT / "bin/sysvisor-runc"
    wrapper = work / ("runc" if mode == "runc" else "sysvisor-runc")
    wrapper.write_text(WRAPPER.format(runtime=source / "runc" if mode == "runc" else f"{ours} {MODES[mode]}"))
    shims = _shims(work)
    for path in (wrapper, *shims.iterdir()):
        path.chmod(0o755)
    temporary = work / "tmp"
    temporary.mkdir()
    for directory in (work, temporary):
        directory.chmod(0o755)  # containers with a user namespace have their root file systems below
    return os.environ | {
        "RUNC": str(wrapper),
        "TMPDIR": str(temporary),
        "PATH": f"{shims}:{os.environ['PATH']}",
        "RUNC_ALLOW_UNSAFE_TESTS": "1",
    }


def _shims(work: pathlib.Path) -> pathlib.Path:
    shims = work / "shims"
    shims.mkdir()
    (shims / "ip").write_text(IP.format(ip=shutil.which("ip")))
    if not shutil.which("udevadm"):
        (shims / "udevadm").write_text("#!/bin/sh\n")
    if not shutil.which("go"):  # asked for the name of the architecture only
        (shims / "go").write_text(f"#!/bin/sh\necho {ARCH[os.uname().machine]}\n")
    try:
        (shims / "criu").write_text(f'#!/bin/sh\nexec {criu.program(work)} "$@"\n')
    except pytest.skip.Exception as reason:  # the suite leaves out what needs it, and says so
        print(f"no criu: {reason}")
    return shims
