"""Checkpoint and restore: what ran goes on where it was, in plain containers and in system containers."""

import json
import os
import pathlib
import re
import shlex
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sysvisor_runc.state.observe import is_frozen
from tests.support import criu
from tests.support.bundle import Bundle
from tests.support.criu import COUNTER, count, counts_on, images, start_counter
from tests.support.leaks import mounts
from tests.support.runtime import Runtime, wait_until
from tests.support.supervised import events
from tests.support.terminal import ConsoleSocket

pytestmark = pytest.mark.debian("criu")

Words = list[str | os.PathLike[str]]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A criu for this machine."""
    return criu.program(tmp_path_factory.mktemp("criu"))


@pytest.fixture(params=["syscont", "plain"])
def any_criu(request: pytest.FixtureRequest, program: str) -> Iterator[Runtime]:
    """Both modes, with criu; nothing may be left mounted."""
    runtime: Runtime = request.getfixturevalue("runtime" if request.param == "syscont" else "plain_runtime")
    runtime.flags = ("--criu", program, *runtime.flags)
    yield runtime
    assert mounts(runtime.directory) == []


@pytest.fixture
def plain_criu(plain_runtime: Runtime, program: str) -> Runtime:
    """A plain runtime with criu."""
    plain_runtime.flags = ("--criu", program, *plain_runtime.flags)
    return plain_runtime


def test_a_program_goes_on(any_criu: Runtime, bundle: Bundle) -> None:
    """A checkpoint ends the container and leaves nothing of it; restored, it counts on from where it was."""
    name = start_counter(any_criu, bundle)
    any_criu("checkpoint", "--image-path", images(any_criu), name)
    assert any_criu.ids() == []
    seen = count(bundle)
    pid_file = any_criu.directory / "pid"
    any_criu(
        "restore", "--detach", "--pid-file", pid_file, "--image-path", images(any_criu), "--bundle", bundle.path, name
    )
    counts_on(bundle, seen)
    assert count(bundle) < seen + 1000  # it did not begin anew and race past
    state = any_criu.state(name)
    assert state["status"] == "running"
    assert int(pid_file.read_text()) == state["pid"]
    assert any_criu("exec", name, "cat", "/proc/1/comm").stdout == "sh\n"


def test_it_is_told_of(plain_criu: Runtime, bundle: Bundle) -> None:
    """A supervisor publishes that a container runs again, and how it ends then."""
    name = start_counter(plain_criu, bundle)
    watching = plain_criu.start_background("events", "--all", "--since", "0")
    # From here on it stays, since somebody watches.
    wait_until(lambda: watching.stdout, 20, "the first event")
    plain_criu("checkpoint", "--image-path", images(plain_criu), name)
    plain_criu("restore", "--detach", "--image-path", images(plain_criu), "--bundle", bundle.path, name)
    pid = plain_criu.state(name)["pid"]
    plain_criu("kill", name, "KILL")

    def told() -> list[dict[str, Any]]:
        mine = [event for event in events(plain_criu) if event["id"] == name]
        again = [index for index, event in enumerate(mine) if event["data"].get("restored")]
        return mine[again[0] :] if again else []

    wait_until(lambda: any(event["type"] == "exit" for event in told()), 20, "an exit after the restoration")
    assert (told()[0]["type"], told()[0]["data"]["pid"]) == ("start", pid)


def test_the_hosts_cgroups_stay_as_they_are(plain_criu: Runtime, bundle: Bundle) -> None:
    """criu mounts cgroup2 without its options, which changes the host's: afterwards they are there again."""

    def options() -> list[str]:
        lines = pathlib.Path("/proc/self/mountinfo").read_text().splitlines()
        return [line.split()[-1] for line in lines if " - cgroup2 " in line]

    before = options()
    if not any("nsdelegate" in text for text in before):
        pytest.skip("cgroup2 has no options here; to force it: make test-vm")
    name = start_counter(plain_criu, bundle)
    plain_criu("checkpoint", "--image-path", images(plain_criu), name)
    assert options() == before
    plain_criu("restore", "--detach", "--image-path", images(plain_criu), "--bundle", bundle.path, name)
    assert options() == before


def test_it_may_run_on(any_criu: Runtime, bundle: Bundle) -> None:
    """With --leave-running the container does not notice; its images can be restored under another name later."""
    # No file may be open in it that it goes on to change: criu looks at sizes.
    bundle.sh("x=kept; while [ ! -e /go ]; do sleep 0.05; done; echo $x >/said; sleep 1000")
    name = any_criu.id()
    any_criu("run", "--detach", "--bundle", bundle.path, name)
    any_criu("checkpoint", "--leave-running", "--image-path", images(any_criu), name)
    assert any_criu.state(name)["status"] == "running"
    any_criu("delete", "--force", name)
    other = any_criu.id()
    any_criu("restore", "--detach", "--image-path", images(any_criu), "--bundle", bundle.path, other)
    (bundle.rootfs / "go").touch()
    said = bundle.rootfs / "said"
    wait_until(lambda: said.exists() and said.read_text() == "kept\n", 20, "what it kept")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted(any_criu: Runtime, bundle: Bundle, number: signal.Signals) -> None:
    """Ctrl-C, which a whole process group gets, ends a checkpoint and not the container: it is not left frozen."""
    name = start_counter(any_criu, bundle)
    # Many, so that criu has something to do while it holds them still, and without the command's files of the host.
    any_criu("exec", name, "sh", "-c", "for i in $(seq 150); do sleep 1000 </dev/null >/dev/null 2>&1 & done")
    record = json.loads((any_criu.root / name / "state.json").read_text())
    saving = any_criu.start_background("checkpoint", "--image-path", images(any_criu), name, start_new_session=True)
    deadline = time.monotonic() + 20
    while not is_frozen(record):
        assert time.monotonic() < deadline, saving.wait()
    os.killpg(saving.process.pid, number)
    assert saving.wait().returncode == 128 + number
    assert any_criu.state(name)["status"] == "running"
    counts_on(bundle, count(bundle))


def test_restore_interrupted(any_criu: Runtime, bundle: Bundle) -> None:
    """A restore is ended by a signal while criu is at work, leaves nothing, and can be made again."""
    name = start_counter(any_criu, bundle)
    any_criu("checkpoint", "--image-path", images(any_criu), name)
    words: Words = ["restore", "--detach", "--image-path", images(any_criu), "--bundle", bundle.path, name]
    restoring = any_criu.start_background(*words)
    wait_until((images(any_criu) / "restore.log").exists, 20, "criu")
    restoring.process.terminate()
    result = restoring.wait()
    assert result.returncode in (0, 128 + signal.SIGTERM), result
    if result.returncode:
        assert any_criu.ids() == []
        any_criu(*words)
    counts_on(bundle, count(bundle))


def test_pre_dump(plain_criu: Runtime, bundle: Bundle) -> None:
    """Memory is saved ahead, and the last image holds only what has changed since."""
    name = start_counter(plain_criu, bundle)
    top = images(plain_criu)
    first = plain_criu("checkpoint", "--pre-dump", "--image-path", top / "first", name, check=False)
    if "lacks mem_track" in first.stderr:
        pytest.skip("no tracking of changed memory here; to force it: make test-vm")
    assert first.returncode == 0, first
    counts_on(bundle, count(bundle))
    plain_criu("checkpoint", "--parent-path", "../first", "--image-path", top / "last", name)
    assert (top / "last/parent").is_symlink()
    seen = count(bundle)
    plain_criu("restore", "--detach", "--image-path", top / "last", "--bundle", bundle.path, name)
    counts_on(bundle, seen)


def test_options_of_criu(plain_criu: Runtime, bundle: Bundle) -> None:
    """What both commands hand on to criu and `--work-path`, where its logs are then, stand in nobody's way."""
    name = start_counter(plain_criu, bundle)
    both: Words = ["--ext-unix-sk", "--file-locks", "--manage-cgroups-mode", "full"]
    work = plain_criu.directory / "work"
    flags: Words = ["--image-path", images(plain_criu), "--work-path", work, *both]
    plain_criu("checkpoint", *flags, "--link-remap", "--tcp-skip-in-flight", "--auto-dedup", name)
    assert (work / "dump.log").exists() and not (images(plain_criu) / "dump.log").exists()
    seen = count(bundle)
    plain_criu("restore", "--detach", *flags, "--auto-dedup", "--bundle", bundle.path, name)
    counts_on(bundle, seen)
    assert (work / "restore.log").exists()
    wrong = plain_criu.fails("checkpoint", "--manage-cgroups-mode", "some", name).stderr
    assert "manage-cgroups-mode" in wrong


def test_what_leads_out(any_criu: Runtime, bundle: Bundle) -> None:
    """Volumes, also behind a link, a file of the host and a tmpfs are there again, the tmpfs with its content."""
    volume = any_criu.directory / "volume"
    volume.mkdir(mode=0o777)
    volume.chmod(0o777)
    (volume / "file").write_text("from the host\n")
    (any_criu.directory / "single").write_text("single\n")
    bundle.config["mounts"] += [
        {"destination": "/volume", "type": "bind", "source": str(volume), "options": ["rbind", "rw"]},
        {"destination": "/link/deep", "type": "bind", "source": str(volume), "options": ["bind"]},
        {"destination": "/single", "type": "bind", "source": str(any_criu.directory / "single"), "options": ["bind"]},
        {"destination": "/scratch", "type": "tmpfs", "source": "tmpfs"},
    ]
    (bundle.rootfs / "link").symlink_to("/where/it/really")
    bundle.sh(f"echo kept >/scratch/kept; {COUNTER}")
    name = any_criu.id()
    any_criu("run", "--detach", "--bundle", bundle.path, name)
    counts_on(bundle, 3)
    any_criu("checkpoint", "--image-path", images(any_criu), name)
    any_criu("restore", "--detach", "--image-path", images(any_criu), "--bundle", bundle.path, name)
    script = "cat /link/deep/file /single /scratch/kept; echo more >/volume/more"
    assert any_criu("exec", name, "sh", "-c", script).stdout == "from the host\nsingle\nkept\n"
    assert (volume / "more").read_text() == "more\n"


def test_a_volume_in_a_volume(any_criu: Runtime, bundle: Bundle) -> None:
    """A mount point that restore finds missing in a volume is made again, as a launch makes it."""
    outer, inner = (any_criu.directory / name for name in ("outer", "inner"))
    for path in (outer, inner):
        path.mkdir()
        path.chmod(0o777)
    (inner / "file").write_text("deep\n")
    bundle.config["mounts"] += [
        {"destination": "/volume", "type": "bind", "source": str(outer), "options": ["bind"]},
        {"destination": "/volume/for/nested", "type": "bind", "source": str(inner), "options": ["bind"]},
    ]
    name = start_counter(any_criu, bundle)
    any_criu("checkpoint", "--image-path", images(any_criu), name)
    (outer / "for/nested").rmdir()
    (outer / "for").rmdir()
    any_criu("restore", "--detach", "--image-path", images(any_criu), "--bundle", bundle.path, name)
    assert any_criu("exec", name, "cat", "/volume/for/nested/file").stdout == "deep\n"


def test_where_the_hosts_mounts_propagate(any_criu: Runtime, bundle: Bundle) -> None:
    """Mounts that are slaves of the host's, as they are where systemd has made those shared, are slaves again."""
    (any_criu.directory / "volume").mkdir()
    volume = {"destination": "/volume", "source": str(any_criu.directory / "volume"), "options": ["bind"]}
    bundle.config["mounts"].append(volume)
    bundle.sh(COUNTER).save()
    name = any_criu.id()

    def command(*words: str | os.PathLike[str]) -> str:
        return shlex.join(any_criu.argv(*words))

    flags: Words = ["--image-path", images(any_criu), name]
    pid_file, seen = any_criu.directory / "pid", any_criu.directory / "seen"
    # What the container writes to must not grow by what the commands say: criu looks at sizes.
    script = f"""
        mount --make-rshared /
        {command("run", "--detach", "--bundle", bundle.path, name)} </dev/null >/dev/null 2>&1
        {command("checkpoint", *flags)}
        {command("restore", "--detach", "--pid-file", pid_file, "--bundle", bundle.path, *flags)}
        cat /proc/$(cat {pid_file})/mountinfo >{seen}
    """
    with open(any_criu.directory / "said", "w+") as said:
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-ec", script], stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
        )
    assert done.returncode == 0, (any_criu.directory / "said").read_text()
    slaves = {line.split()[4] for line in seen.read_text().splitlines() if " master:" in line}
    assert slaves >= {"/", "/volume"}


def test_what_joined_later(any_criu: Runtime, bundle: Bundle) -> None:
    """A process that exec has left in a restored container is saved with it, and is there again."""
    name, pid = start_counter(any_criu, bundle), ""
    for _ in range(2):
        any_criu("checkpoint", "--image-path", images(any_criu), name)
        any_criu("restore", "--detach", "--image-path", images(any_criu), "--bundle", bundle.path, name)
        script = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"
        pid = any_criu("exec", name, "sh", "-c", script).stdout.strip()
        assert any_criu("exec", name, "cat", f"/proc/{pid}/comm").stdout == "sleep\n"
    assert any_criu("exec", name, "pidof", "sleep").stdout.split().count(pid) == 1


def test_streams_are_handed_in_anew(plain_criu: Runtime, bundle: Bundle) -> None:
    """A container that wrote to a pipe writes to the one of who restores it, and its exit code is restore's."""
    bundle.sh("while [ ! -e /go ]; do sleep 0.05; done; echo after; exit 7")
    name = plain_criu.id()
    read, write = os.pipe()
    plain_criu("run", "--detach", "--bundle", bundle.path, name, stdin=subprocess.DEVNULL, stdout=write, stderr=write)
    os.close(write)
    plain_criu.wait_status(name, "running")
    plain_criu("checkpoint", "--image-path", images(plain_criu), name)
    os.close(read)
    read, write = os.pipe()
    running = plain_criu.start_background(
        "restore", "--image-path", images(plain_criu), "--bundle", bundle.path, name, stdout=write, stderr=write
    )
    os.close(write)
    wait_until(lambda: plain_criu.ids() == [name], 20, "the container")
    (bundle.rootfs / "go").touch()
    code = running.process.wait(20)
    with open(read) as file:
        said = file.read()
    assert (code, "after\n" in said) == (7, True), said
    assert plain_criu.ids() == []


def test_a_terminal_comes_back(any_criu: Runtime, bundle: Bundle) -> None:
    """The terminal's master is sent to the console socket again, and the shell behind it answers."""
    bundle.process["terminal"] = True
    bundle.run("/bin/sh")
    name = any_criu.id()
    listener = ConsoleSocket(any_criu.directory)
    any_criu("run", "--detach", "--console-socket", listener.path, "--bundle", bundle.path, name)
    _, master = listener.receive()
    os.write(master, b"x=kept\n")
    wait_until(lambda: b"kept" in os.read(master, 4096), 10, "the echo")
    any_criu("checkpoint", "--shell-job", "--image-path", images(any_criu), name)
    os.close(master)
    flags: Words = ["--detach", "--console-socket", listener.path, "--image-path", images(any_criu)]
    any_criu("restore", "--shell-job", *flags, "--bundle", bundle.path, name)
    _, master = listener.receive()
    listener.close()
    os.write(master, b"echo [$x]\n")
    said = b""

    def answered() -> bool:
        nonlocal said
        said += os.read(master, 4096)
        return b"[kept]" in said

    wait_until(answered, 10, "the answer")
    os.close(master)


def test_the_ids_of_the_images(any_criu: Runtime, bundle: Bundle, request: pytest.FixtureRequest) -> None:
    """A system container gets the ids back that its images were made with, whatever its name is now."""
    if "plain" in request.node.name:
        assert not (images(any_criu) / "ids.json").exists()
        return
    name = start_counter(any_criu, bundle)
    before = pathlib.Path(f"/proc/{any_criu.state(name)['pid']}/uid_map").read_text()
    any_criu("checkpoint", "--image-path", images(any_criu), name)
    other = any_criu.id()
    any_criu("restore", "--detach", "--image-path", images(any_criu), "--bundle", bundle.path, other)
    assert pathlib.Path(f"/proc/{any_criu.state(other)['pid']}/uid_map").read_text() == before
    refused = any_criu.fails("restore", "-d", "--image-path", images(any_criu), "--bundle", bundle.path, name).stderr
    assert "the ids of the checkpoint" in refused


def test_the_network_is_there_again(any_criu: Runtime, bundle: Bundle) -> None:
    """`lo` is up after a restore, as after a first launch."""
    name = start_counter(any_criu, bundle)
    any_criu("checkpoint", "--image-path", images(any_criu), name)
    any_criu("restore", "--detach", "--image-path", images(any_criu), "--bundle", bundle.path, name)
    assert "UP" in any_criu("exec", name, "ip", "link", "show", "lo").stdout


def test_a_network_namespace_by_path(plain_criu: Runtime, bundle: Bundle) -> None:
    """A namespace that was the host's to give is not saved but found again by its path."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "1000"])
    try:
        own = os.stat("/proc/self/ns/net").st_ino
        wait_until(lambda: os.stat(f"/proc/{holder.pid}/ns/net").st_ino != own, 10, "a namespace")
        path = f"/proc/{holder.pid}/ns/net"
        for entry in bundle.linux["namespaces"]:
            if entry["type"] == "network":
                entry["path"] = path
        name = start_counter(plain_criu, bundle)
        plain_criu("checkpoint", "--image-path", images(plain_criu), name)
        plain_criu("restore", "--detach", "--image-path", images(plain_criu), "--bundle", bundle.path, name)
        assert os.stat(f"/proc/{plain_criu.state(name)['pid']}/ns/net").st_ino == os.stat(path).st_ino
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_without_criu(plain_runtime: Runtime, bundle: Bundle, verb: str) -> None:
    """Told in one line, with what to do; the container runs on."""
    plain_runtime.flags = ("--criu", "/no/such/criu", *plain_runtime.flags)
    name = start_counter(plain_runtime, bundle)
    if verb == "checkpoint":
        refused = plain_runtime.fails("checkpoint", "--image-path", images(plain_runtime), name).stderr
    else:
        refused = plain_runtime.fails("restore", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "'/no/such/criu' not found (install criu" in refused
    assert plain_runtime.state(name)["status"] == "running"


REFUSALS: dict[str, tuple[Callable[[pathlib.Path], Words], str]] = {
    "no images": (lambda top: ["--image-path", top / "nowhere"], "open .*: no such file or directory"),
    "an empty directory": (lambda top: ["--image-path", top], "no descriptors.json"),
    "another namespace": (lambda top: ["--empty-ns", "pid"], "'pid' is not supported"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_bad_images(plain_criu: Runtime, bundle: Bundle, name: str) -> None:
    """What cannot be restored is told in one line and leaves nothing."""
    flags, words = REFUSALS[name]
    top = images(plain_criu)
    top.mkdir()
    refused = plain_criu.fails("restore", *flags(top), "--bundle", bundle.path, plain_criu.id()).stderr
    assert re.search(words, refused), refused
    assert not plain_criu.root.exists() or plain_criu.ids() == []


def test_damaged_images(plain_criu: Runtime, bundle: Bundle) -> None:
    """criu's own complaint is in the error, with where its log is; nothing is left of the attempt."""
    name = start_counter(plain_criu, bundle)
    plain_criu("checkpoint", "--image-path", images(plain_criu), name)
    (images(plain_criu) / "pstree.img").write_bytes(b"rubbish")
    refused = plain_criu.fails("restore", "--image-path", images(plain_criu), "--bundle", bundle.path, name).stderr
    assert "criu failed: type RESTORE" in refused and "restore.log" in refused
    assert plain_criu.ids() == []


def test_only_what_runs(plain_criu: Runtime, bundle: Bundle) -> None:
    """A created container has nothing to save yet, a stopped one nothing any more; a paused one has."""
    name = plain_criu.id()
    plain_criu("create", "--bundle", bundle.sh(COUNTER).path, name)
    flags: Words = ["--image-path", images(plain_criu)]
    assert "cannot be checkpointed in created state" in plain_criu.fails("checkpoint", *flags, name).stderr
    plain_criu("start", name)
    counts_on(bundle, 3)
    assert "must be relative" in plain_criu.fails("checkpoint", *flags, "--parent-path", "/x", name).stderr
    assert "ADDRESS:PORT" in plain_criu.fails("checkpoint", *flags, "--page-server", "x", name).stderr
    plain_criu("kill", name, "KILL")
    plain_criu.wait_status(name, "stopped")
    assert "cannot be checkpointed in stopped state" in plain_criu.fails("checkpoint", *flags, name).stderr
