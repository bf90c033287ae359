"""The console in the foreground: how fast `run` carries a program's output through two real pseudo-terminals, and what
that costs it, beside runc and beside a reader without any relay."""

import json
import os
import pathlib
import pty
import select
import statistics
import subprocess
import sys
import time
import tty

from tests.bench.subjects import Subject

MIB = 1 << 20
TICKS = os.sysconf("SC_CLK_TCK")
DIRECT = "no relay"
# Seconds that one go may take.
PATIENCE = 120.0
# What is aimed at, relative to runc: at least this rate, at most this CPU.
RATE, CPU = 1.1, 1.2


class Sample:
    """One go: MiB per second as the reader sees it, and CPU seconds of the command itself (not of the program)."""

    def __init__(self, rate: float, cpu: float) -> None:
        self.rate = rate
        self.cpu = cpu


def carry(command: list[str], size: int, patience: float = PATIENCE) -> Sample:
    """Run a command on a terminal, read `size` bytes as fast as they come, and see it end well.

    Raises:
        RuntimeError: it does not, or not within `patience` seconds.
    """
    master, slave = pty.openpty()
    tty.setraw(slave)
    process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    deadline = time.monotonic() + patience
    seen = 0
    began = cpu = 0.0
    took = 1.0
    tail = b""
    try:
        while part := _read(master, deadline):
            if not seen:
                began = time.monotonic()
            if seen < size <= seen + len(part):
                took = time.monotonic() - began
                cpu = _cpu(process.pid)
            seen += len(part)
            tail = part[-200:]
        if seen < size or process.wait(max(deadline - time.monotonic(), 1)):
            raise RuntimeError(f"{command}: {seen} of {size} bytes, exit {process.poll()}: {tail!r}")
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"{command}: no end after {patience:.0f} s: {seen} of {size} bytes") from error
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        os.close(master)
    return Sample(size / MIB / took, cpu)


def _read(master: int, deadline: float) -> bytes:
    """What comes next; nothing when there is no more, or none in time."""
    if not select.select([master], [], [], max(deadline - time.monotonic(), 0))[0]:
        return b""
    try:
        return os.read(master, 65536)
    except OSError:  # EIO: nobody has the other end any more
        return b""


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
            try:
                sample = carry([*subject.command, "run", "--bundle", path, name], size)
            except RuntimeError as error:
                sys.stderr.write(f"\nbench: console: {error}\n")
                subject("delete", "--force", name, allow_failure=True)
                continue
            if number:  # the first warms up
                samples.setdefault(subject.name, []).append(sample)
        if number:
            samples.setdefault(DIRECT, []).append(carry(["/bin/head", "-c", str(size), "/dev/zero"], size))
    return _table(samples, size)


def _table(samples: dict[str, list[Sample]], size: int) -> str:
    """Medians, and whether ours are what is aimed at beside runc's."""
    medians = {
        name: [statistics.median(getattr(one, what) for one in taken) for what in ("rate", "cpu")]
        for name, taken in samples.items()
    }
    lines = [f"console, {size // MIB} MiB through a terminal{'':20} MiB/s  CPU s of the command"]
    for name, (rate, cpu) in medians.items():
        lines.append(f"{name:50} {rate:8.1f}  {'' if name == DIRECT else f'{cpu:.2f}'}")
    if "ours" in medians and "runc" in medians:
        rate, cpu = (ours / max(theirs, 0.01) for ours, theirs in zip(medians["ours"], medians["runc"], strict=True))
        lines.append(
            f"{'ours / runc':50} {rate:8.2f}  {cpu:.2f}"
            f"    target ≥ {RATE} {'✓' if rate >= RATE else '✗'}, ≤ {CPU} {'✓' if cpu <= CPU else '✗'}"
        )
    return "\n".join(lines)
