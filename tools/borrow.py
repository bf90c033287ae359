"""Programs of this machine for a root file system: copied with the libraries that they are linked to.

busybox counts memory with sysinfo(2), which shows the kernel's; procps reads /proc, as most programs do.
"""

import pathlib
import re
import shutil
import subprocess

_LIBRARY = re.compile(r"(/\S+) \(0x")


def programs(rootfs: pathlib.Path, *names: str) -> list[str]:
    """Copy the programs that this machine has, in place of busybox' own; the names of those."""
    found = []
    for name in names:
        path = shutil.which(name)
        if path is None:
            continue
        source = pathlib.Path(path).resolve()
        for file in (source, *_libraries(source)):
            target = rootfs / str(file).lstrip("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            if not target.exists():
                shutil.copy2(file, target)
        for directory in ("bin", "sbin", "usr/bin", "usr/sbin"):
            link = rootfs / directory / name
            if link.is_symlink() or link.exists():
                link.unlink()
        place = rootfs / "bin" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, place)
        found.append(name)
    return found


def _libraries(program: pathlib.Path) -> list[pathlib.Path]:
    listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
    return [pathlib.Path(path) for path in _LIBRARY.findall(listed)]
