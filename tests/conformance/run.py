"""Runs the integration suite of opencontainers/runc against this runtime and judges what comes out.

    python3 -m tests.conformance.run [--mode plain|syscont|runc] [--keep DIRECTORY] [--filter REGEX] RUNC_SRC [FILE…]

RUNC_SRC is a checkout of runc; its test programs and images are made on the first run, into that checkout: helpers need
Go, the images `busybox-static` and `mmdebstrap`. Needs root, bats 1.9 or newer (`BATS=…` names it), gawk, jq,
script(1), unshare(1), uidmap. SYSVISOR_RUNC names an installed runtime to test instead of the tree's.

Each file runs on a terminal of its own in new mount, pid, network, ipc and cgroup namespaces. The table counts; the
exit code says whether all came out as expected.txt (and in system-container mode expected-syscont.txt) has it: whatever
does not pass stands there with its reason, and nothing that stands there to fail has come to pass. With the checkout's
own `runc` nothing is judged.
"""

import argparse
import fcntl
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tempfile

from tests.conformance import suite

HERE = pathlib.Path(__file__).resolve().parent
FILE_TIMEOUT, TEST_TIMEOUT = 1800, 300
# Tests that the suite calls unsafe write to /etc: to one of their own. They are skipped where there can be none.
# A failed test can leave a helper behind that holds the suite's output open: once the tests are over, it goes. One can
# also wait for ever, as that of lazy pages does: after TEST_TIMEOUT what it waits for goes. (The timer that bats has
# spoils other results.)
INNER = """
ip link set lo up
mkdir {etc} {etc}/upper {etc}/work
mount -t overlay -o lowerdir=/etc,upperdir={etc}/upper,workdir={etc}/work overlay /etc || unset RUNC_ALLOW_UNSAFE_TESTS
( sleep 5; while sleep 2; do
    pgrep -f bats-exec-suite || pkill -x recvtty
    for stuck in $(pgrep -f --older {timeout} bats-exec-test); do pkill -P $stuck; done
done ) </dev/null >/dev/null 2>&1 &
{bats} --tap {filter} {file} >{out} 2>&1
"""
PLAN = re.compile(r"^1\.\.(\d+)$")
TAP = re.compile(r"^(not ok|ok) \d+ (.*?)(?:\s*# skip ?(.*))?$")
VERDICTS = ("differs", "machine")


class Expected:
    """What does not pass: `FILE | VERDICT | TEST | REASON` per line; what a later file says of a test holds.

    differs: the test fails, since it asks for what is deliberately not so here. machine: passes or fails with the
    machine. What the suite skips is up to the suite, which gives its own reason.
    """

    def __init__(self, *paths: pathlib.Path) -> None:
        self.entries: dict[tuple[str, str], tuple[str, str]] = {}
        for path in paths:
            for line in path.read_text().splitlines():
                if line.strip() and not line.startswith("#"):
                    self._add(path, line)

    def _add(self, path: pathlib.Path, line: str) -> None:
        parts = [part.strip() for part in line.split(" | ", 3)]
        if len(parts) != 4 or parts[1] not in VERDICTS:
            raise SystemExit(f"{path}: not FILE | {' or '.join(VERDICTS)} | TEST | REASON: {line!r}")
        file, verdict, test, reason = parts
        self.entries[file, test] = verdict, reason

    def verdict(self, file: str, test: str) -> str:
        return self.entries.get((file, test), ("", ""))[0]

    def tests(self, file: str) -> set[str]:
        return {test for listed, test in self.entries if listed == file}


class Results:
    """Test name → `pass`, `fail` or `skip` of one file, in `verdicts`, and in `reasons` why a test was skipped.

    `planned` is how many tests bats has announced.
    """

    def __init__(self, text: str) -> None:
        self.planned = 0
        self.verdicts: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        for line in text.replace("\r", "").splitlines():
            if plan := PLAN.match(line):
                self.planned = int(plan[1])
            elif found := TAP.match(line):
                skipped = found[3] is not None
                self.verdicts[found[2].strip()] = "skip" if skipped else "pass" if found[1] == "ok" else "fail"
                if skipped:
                    self.reasons[found[2].strip()] = found[3]

    def count(self, kind: str) -> int:
        return sum(verdict == kind for verdict in self.verdicts.values())


def _bats() -> str:
    return os.environ.get("BATS") or "bats"


def run_file(source: pathlib.Path, file: str, work: pathlib.Path, env: dict[str, str], pattern: str) -> Results:
    """Run one file; what bats has said stays in `work`."""
    out, inner = work / f"{file}.tap", work / "inner"
    words = {"bats": _bats(), "file": source / f"tests/integration/{file}.bats", "out": out}
    words["etc"] = work / f"{file}.etc"
    quoted = {name: shlex.quote(str(word)) for name, word in words.items()}
    only = f"--filter {shlex.quote(pattern)}" if pattern else ""
    inner.write_text(INNER.format(filter=only, timeout=TEST_TIMEOUT, **quoted))
    # criu looks for cgroups by their paths as it sees them, below where the host has its hierarchies mounted.
    own_cgroups = "" if file == "checkpoint" else "-C"
    namespaces = f"unshare -m -p -f -n -i {own_cgroups} --mount-proc --kill-child sh {inner}"
    # Nobody types: an end of file would be passed on to the tests' terminals.
    stdin, keep = os.pipe()
    try:
        command = ["script", "-qec", namespaces, "/dev/null"]
        subprocess.run(command, cwd=work, env=env, stdin=stdin, stdout=subprocess.DEVNULL, timeout=FILE_TIMEOUT)
    except subprocess.TimeoutExpired:
        print(f"{file}: given up after {FILE_TIMEOUT} s")
    finally:
        os.close(stdin)
        os.close(keep)
    return Results(out.read_text(errors="replace") if out.exists() else "")


def judge(file: str, results: Results, expected: Expected) -> list[str]:
    """What is not as expected: in each case one line."""
    surprises = []
    if not results.planned or len(results.verdicts) < results.planned:
        surprises.append(f"{file}: {len(results.verdicts)} results of {results.planned} tests announced")
    for test, result in results.verdicts.items():
        verdict = expected.verdict(file, test)
        if result == "fail" and not verdict:
            surprises.append(f"{file}: fails: {test}")
        if result == "pass" and verdict == "differs":
            surprises.append(f"{file}: passes, though it is listed to differ: {test}")
    return surprises


def missing(file: str, results: Results, expected: Expected) -> list[str]:
    """What is listed for the file and was not run: the list is older than the suite."""
    gone = sorted(expected.tests(file) - set(results.verdicts))
    return [f"{file}: is listed but was not run: {test}" for test in gone]


def arguments(words: list[str]) -> argparse.Namespace:
    about, _, rest = (__doc__ or "").partition("\n")
    parser = argparse.ArgumentParser("tests.conformance.run", description=about, epilog=rest)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--mode", choices=suite.MODES, default="plain")
    parser.add_argument("--keep", type=pathlib.Path, metavar="DIRECTORY", help="where the output of bats goes")
    parser.add_argument("--filter", metavar="REGEX", default="", help="only the tests whose names match")
    parser.add_argument("source", type=pathlib.Path, metavar="RUNC_SRC")
    parser.add_argument("files", nargs="*", metavar="FILE", help="run.bats or run; all of them by default")
    return parser.parse_args(words)


def chosen(source: pathlib.Path, names: list[str]) -> list[str]:
    """The files to run, which must exist."""
    there = sorted(path.stem for path in (source / "tests/integration").glob("*.bats"))
    if not there:
        raise SystemExit(f"{source}: no tests/integration/*.bats there; name a checkout of opencontainers/runc")
    wanted = [name.removesuffix(".bats") for name in names]
    if unknown := sorted(set(wanted) - set(there)):
        raise SystemExit(f"{source}: no such file: {' '.join(unknown)}; there are {' '.join(there)}")
    return wanted or there


def run(options: argparse.Namespace, source: pathlib.Path, files: list[str]) -> dict[str, Results]:
    """Run the files one after the other, and print the table meanwhile."""
    done = {}
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        work = pathlib.Path(directory)
        env = suite.environment(source, options.mode, work)
        print(f"{'file':28} {'pass':>5} {'fail':>5} {'skip':>5}")
        for file in files:
            done[file] = results = run_file(source, file, work, env, options.filter)
            _print_row(file, [results])
            if options.keep and (work / f"{file}.tap").exists():
                options.keep.mkdir(parents=True, exist_ok=True)
                shutil.copy(work / f"{file}.tap", options.keep)
    _print_row("total", list(done.values()))
    return done


def _print_row(name: str, results: list[Results]) -> None:
    counts = [sum(one.count(kind) for one in results) for kind in ("pass", "fail", "skip")]
    print(f"{name:28} " + " ".join(f"{count:5}" for count in counts), flush=True)


def main(words: list[str]) -> int:
    options = arguments(words)
    source = options.source.resolve()
    files = chosen(source, options.files)
    if not shutil.which(_bats()):
        raise SystemExit(f"{_bats()}: not found; install bats 1.9 or newer, or name it in BATS=…")
    own = [HERE / "expected-syscont.txt"] if options.mode == "syscont" else []
    expected = Expected(HERE / "expected.txt", *own)
    # The containers have the same names every time, and so the same cgroups.
    alone = os.open(source, os.O_RDONLY)
    fcntl.flock(alone, fcntl.LOCK_EX)
    suite.prepare(source)
    done = run(options, source, files)
    for file, results in done.items():
        for test, reason in results.reasons.items():
            print(f"{file}: skipped: {test}: {reason}")
    if options.mode == "runc":
        return 0
    surprises = [line for file, results in done.items() for line in judge(file, results, expected)]
    if not options.filter:
        surprises += [line for file, results in done.items() for line in missing(file, results, expected)]
    for line in surprises:
        print(f"unexpected: {line}")
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
