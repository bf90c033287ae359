"""The console in the foreground: how fast `run` carries a program's output through two real pseudo-terminals, and what
that costs it, beside runc and beside a reader without any relay."""

import json
import os
import pathlib
import pty
import statistics
import subprocess
import sys
import time
import tty

from tests.bench.subjects import Subject

MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
DIRECT = "no relay"


class Sample:
    """One go: MiB per second as the reader sees it, and CPU seconds of the command itself (not of the program)."""

    def __init__(self, rate: float, cpu: float) -> None:
        self.rate = rate
        self.cpu = cpu


def carry(command: list[str], size: int) -> Sample:
    """Run a command on a terminal, read `size` bytes as fast as they come, and see it end well."""
    master, slave = pty.openpty()
    tty.setraw(slave)
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    seen = 0
    began = 0.0
    tail = b""
    while seen < size:
        try:
            part = os.read(master, 65536)
        except OSError:
            break
        if not seen:
            began = time.monotonic()
        seen += len(part)
        tail = part[-200:]
    took = time.monotonic() - began
    cpu = _cpu(process.pid)
    while process.poll() is None:  # a word of its own, perhaps
        try:
            tail += os.read(master, 65536)
        except OSError:
            break
    if seen < size or process.wait(30):
        raise RuntimeError(f"{command}: {seen} of {size} bytes, exit {process.poll()}: {tail!r}")
    os.close(master)
    return Sample(size / MIB / took, cpu)


def _cpu(pid: int) -> float:
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def bundle(directory: pathlib.Path, template: str, size: int) -> str:
    """A bundle whose program writes `size` bytes to its terminal."""
    path = directory / "console"
    path.mkdir()
    config = json.loads((pathlib.Path(template) / "config.json").read_text())
    config["process"] |= {"terminal": True, "args": ["/bin/busybox", "head", "-c", str(size), "/dev/zero"]}
    config["root"]["path"] = f"{template}/rootfs"
    (path / "config.json").write_text(json.dumps(config))
    return str(path)


def measure(subjects: list[Subject], directory: pathlib.Path, template: str, size: int, runs: int) -> str:
    """The table: medians of interleaved runs."""
    path = bundle(directory, template, size)
    samples: dict[str, list[Sample]] = {}
    for number in range(runs + 1):
        for subject in subjects:
            if sys.stderr.isatty():
                sys.stderr.write(f"\rconsole, round {number} of {runs} ")
            name = f"{subject.prefix}-console-{number}"
            sample = carry([*subject.command, "run", "--bundle", path, name], size)
            if number:  # the first warms up
                samples.setdefault(subject.name, []).append(sample)
        if number:
            samples.setdefault(DIRECT, []).append(carry(["/bin/head", "-c", str(size), "/dev/zero"], size))
    lines = [f"console, {size // MIB} MiB through a terminal{'':20} MiB/s  CPU s of the command"]
    for name, taken in samples.items():
        rate, cpu = (statistics.median(getattr(one, what) for one in taken) for what in ("rate", "cpu"))
        lines.append(f"{name:50} {rate:8.1f}  {'' if name == DIRECT else f'{cpu:.2f}'}")
    return "\n".join(lines)
