"""Runs the integration suite of opencontainers/runc against this runtime, as a strict OCI runtime, and judges it.

    python3 -m tests.conformance.run RUNC_SRC [FILE…]

RUNC_SRC is a checkout of runc; its test programs (`make test-binaries`) and images are made on the first run, into
that checkout: helpers need Go, the images `busybox-static` and `mmdebstrap`. Nothing of runc's is kept in this project.
Needs root, bats 1.9 or newer (`BATS=…` names it), gawk, jq, script(1), unshare(1), uidmap.

Each file runs on a terminal of its own in new mount, pid, network, ipc and cgroup namespaces. The table counts; the
exit code says whether every failure stands in expected.txt with its reason, and none there has come to pass.
"""

import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
HELPERS = ("recvtty", "sd-helper", "seccompagent", "fs-idmap", "pidfd-kill", "remap-rootfs", "key_label")
FILE_TIMEOUT = 600
# A failed test can leave a helper behind that holds the suite's output open: once the tests are over, it goes.
INNER = """
ip link set lo up
( sleep 5; while sleep 2; do pgrep -f bats-exec-suite || pkill -x recvtty; done ) </dev/null >/dev/null 2>&1 &
{bats} --tap {file} >{out} 2>&1
"""
# The suite starts its receiver of terminals in the background and does not wait until it listens.
WRAPPER = """#!/bin/sh
i=0
while [ -d "${{CONSOLE_SOCKET%/*}}" ] && [ ! -S "$CONSOLE_SOCKET" ] && [ $i -lt 100 ]; do sleep 0.01; i=$((i + 1)); done
exec {runtime} --no-syscont --no-sysvisor-fs "$@"
"""
SHIMS = {
    # One end of a veth pair stands in where the kernel has no dummy device.
    "ip": """#!/bin/sh
case "$*" in
"link add "*" type dummy") {ip} "$@" 2>/dev/null || exec {ip} link add "$3" type veth peer name "p$3" ;;
*) exec {ip} "$@" ;;
esac
""",
}
TAP = re.compile(r"^(not ok|ok) \d+ (.*?)(?:\s*# skip ?(.*))?$")
VERDICTS = ("differs", "machine", "later")


class Expected:
    """expected.txt: `FILE | VERDICT | TEST | REASON` per line; the test `*` stands for the whole file.

    differs: the test pins a mechanism of runc's that is not ours, and fails. machine: passes or fails with the machine.
    later: about a command that is not there yet; the file is not run.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.entries: dict[tuple[str, str], tuple[str, str]] = {}
        for line in path.read_text().splitlines():
            if line.strip() and not line.startswith("#"):
                file, verdict, test, reason = (part.strip() for part in line.split(" | ", 3))
                if verdict not in VERDICTS:
                    raise SystemExit(f"{path}: unknown verdict {verdict!r}")
                self.entries[file, test] = verdict, reason

    def verdict(self, file: str, test: str) -> str:
        return self.entries.get((file, test), ("", ""))[0]

    def left_out(self, file: str) -> bool:
        return self.verdict(file, "*") == "later"


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
    arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
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


def environment(work: pathlib.Path) -> dict[str, str]:
    """The suite's: our runtime behind a wrapper that makes it strict, the stand-ins first on PATH."""
    wrapper = work / "sysvisor-runc"
    wrapper.write_text(WRAPPER.format(runtime=ROOT / "bin/sysvisor-runc"))
    shims = work / "shims"
    shims.mkdir()
    for name, text in SHIMS.items():
        (shims / name).write_text(text.format(ip=shutil.which("ip")))
    if not shutil.which("udevadm"):
        (shims / "udevadm").write_text("#!/bin/sh\n")
    if not shutil.which("go"):  # asked for the name of the architecture only
        arch = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
        (shims / "go").write_text(f"#!/bin/sh\necho {arch}\n")
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


def run_file(source: pathlib.Path, file: str, work: pathlib.Path, env: dict[str, str]) -> dict[str, str]:
    """Test name to `pass`, `fail` or `skip` for one file."""
    out, inner = work / f"{file}.tap", work / "inner"
    bats = os.environ.get("BATS") or "bats"
    inner.write_text(INNER.format(bats=bats, file=source / f"tests/integration/{file}.bats", out=out))
    namespaces = f"unshare -m -p -f -n -i -C --mount-proc --kill-child sh {inner}"
    # Nobody types: an end of file would be passed on to the tests' terminals.
    stdin, keep = os.pipe()
    try:
        command = ["script", "-qec", namespaces, "/dev/null"]
        subprocess.run(command, env=env, stdin=stdin, stdout=subprocess.DEVNULL, timeout=FILE_TIMEOUT)
    except subprocess.TimeoutExpired:
        print(f"{file}: given up after {FILE_TIMEOUT} s")
    finally:
        os.close(stdin)
        os.close(keep)
    results = {}
    for line in out.read_text(errors="replace").replace("\r", "").splitlines() if out.exists() else ():
        found = TAP.match(line)
        if found:
            skipped = found[3] is not None
            results[found[2].strip()] = "skip" if skipped else "pass" if found[1] == "ok" else "fail"
    return results


def judge(file: str, results: dict[str, str], expected: Expected) -> list[str]:
    """What is not as expected.txt has it."""
    surprises = [] if results else [f"{file}: no result at all"]
    for test, result in results.items():
        verdict = expected.verdict(file, test)
        if result == "fail" and not verdict:
            surprises.append(f"{file}: fails: {test}")
        if result == "pass" and verdict == "differs":
            surprises.append(f"{file}: passes, though expected.txt says it differs: {test}")
    return surprises


def main(arguments: list[str]) -> int:
    if not arguments:
        print(__doc__)
        return 2
    source = pathlib.Path(arguments[0]).resolve()
    expected = Expected(HERE / "expected.txt")
    prepare(source)
    files = arguments[1:] or sorted(p.stem for p in (source / "tests/integration").glob("*.bats"))
    surprises: list[str] = []
    total = dict.fromkeys(("pass", "fail", "skip"), 0)
    with tempfile.TemporaryDirectory(prefix="conformance-") as directory:
        work = pathlib.Path(directory)
        env = environment(work)
        print(f"{'file':28} {'pass':>5} {'fail':>5} {'skip':>5}")
        for file in files:
            if expected.left_out(file):
                print(f"{file:28} left out: {expected.entries[file, '*'][1]}")
                continue
            results = run_file(source, file, work, env)
            counts = {kind: sum(r == kind for r in results.values()) for kind in total}
            print(f"{file:28} {counts['pass']:5} {counts['fail']:5} {counts['skip']:5}", flush=True)
            total = {kind: total[kind] + counts[kind] for kind in total}
            surprises += judge(file, results, expected)
    print(f"{'total':28} {total['pass']:5} {total['fail']:5} {total['skip']:5}")
    for line in surprises:
        print(line)
    return 1 if surprises else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
