"""Makes a root file system out of one static busybox: no download, no Docker, a hundredth of a second.

Used by `make demo`, the tests and the benchmark; by hand: `python3 tools/busybox_rootfs.py bundle/rootfs`.
"""

import os
import pathlib
import shutil
import subprocess
import sys

DIRECTORIES = (
    "bin",
    "sbin",
    "usr/bin",
    "usr/sbin",
    "etc",
    "root",
    "proc",
    "sys",
    "dev",
    "run",
    "tmp",
    "var",
    "home",
    "mnt",
)
FILES = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
    "etc/group": "root:x:0:\ntty:x:5:\nnogroup:x:65534:\n",
    "etc/hosts": "127.0.0.1 localhost\n::1 localhost\n",
    "etc/profile": "export PS1='\\u@\\h:\\w\\$ '\n",
}


def find_busybox() -> str:
    """The path of a statically linked busybox. Raises FileNotFoundError with what to install."""
    for candidate in (os.environ.get("BUSYBOX"), "/bin/busybox", "/usr/bin/busybox", "/usr/lib/busybox/busybox-static"):
        if candidate and os.access(candidate, os.X_OK) and _is_static(candidate):
            return candidate
    raise FileNotFoundError("no static busybox found: install busybox-static, or name one in BUSYBOX")


def _is_static(path: str) -> bool:
    """Whether an ELF file asks for no dynamic loader (no PT_INTERP; its path would stand in the first page)."""
    with open(path, "rb") as file:
        head = file.read(4096)
    return head[:4] == b"\x7fELF" and b"/ld-" not in head


def applets(busybox: str) -> list[str]:
    """The paths under which this busybox wants to be called, such as `usr/bin/env`."""
    listed = subprocess.run([busybox, "--list-full"], check=True, capture_output=True, text=True)
    return [path for path in listed.stdout.split() if path != "bin/busybox"]


def make(rootfs: pathlib.Path) -> None:
    """Fill `rootfs` (made if absent) with busybox, its applets as symbolic links, and a minimal /etc."""
    busybox = find_busybox()
    for name in DIRECTORIES:
        (rootfs / name).mkdir(parents=True, exist_ok=True)
    (rootfs / "tmp").chmod(0o1777)
    (rootfs / "root").chmod(0o700)
    shutil.copy2(busybox, rootfs / "bin/busybox")
    for path in applets(busybox):
        link = rootfs / path
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to("/bin/busybox")
    for name, text in FILES.items():
        (rootfs / name).write_text(text)


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: busybox_rootfs.py DIRECTORY")
    make(pathlib.Path(sys.argv[1]))
