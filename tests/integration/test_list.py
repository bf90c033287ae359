"""`list`: table, JSON and ids, on containers of every kind that a state root can hold."""

import json
import os
import re
import shutil
import subprocess
import threading

import pytest

from sysvisor_runc.state.store import Store
from tests.support.bundle import Bundle
from tests.support.handmade import container
from tests.support.runtime import Runtime


def test_the_table_is_aligned(runtime: Runtime) -> None:
    """Columns begin where runc's do: three blanks after the longest cell, twelve characters at least."""
    with container(runtime) as one, container(runtime) as two:
        lines = runtime("list").stdout.splitlines()
    assert re.fullmatch(r"ID +PID +STATUS +BUNDLE +CREATED +OWNER", lines[0])
    assert [line.split()[0] for line in lines[1:]] == sorted([one.id, two.id])
    assert lines[0].index("PID") == len(one.id) + 3
    assert lines[0].index("STATUS") == lines[0].index("PID") + 12
    for line in lines[1:]:
        assert line[lines[0].index("STATUS") :].startswith("running     " + str(runtime.directory))
        assert line.endswith("   root")


def test_json_has_the_keys_of_runc(runtime: Runtime) -> None:
    """One line, with the keys in runc's order; annotations only where there are some."""
    with container(runtime) as one, container(runtime) as two:
        two.save(annotations={"z": "1", "a": "2"})
        result = runtime("list", "--format", "json")
    assert result.stdout.count("\n") == 1
    plain, annotated = sorted(result.json, key=lambda row: str(row["id"]))
    assert list(plain) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert list(annotated)[-2:] == ["annotations", "owner"]
    assert list(annotated["annotations"].items()) == [("a", "2"), ("z", "1")]
    assert (plain["id"], plain["pid"], plain["owner"]) == (one.id, one.init.pid, "root")


def test_a_root_shared_with_runc(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Its containers are not shown, and no command of ours touches them, least of all `delete --force`."""
    program = shutil.which("runc")
    if program is None:
        pytest.skip("no runc; to force it: apt-get install runc")
    ours, theirs = plain_runtime.id(), plain_runtime.id()
    plain_runtime("create", "--bundle", bundle.path, ours)
    (bundle.path / "config.json").unlink()
    as_other = [program, "--root", str(plain_runtime.root)]
    subprocess.run([program, "spec"], cwd=bundle.path, check=True)
    bundle.config = json.loads((bundle.path / "config.json").read_text())
    bundle.process["terminal"] = False
    bundle.run("/bin/sleep", "100")
    with open(os.devnull, "r+") as null:
        run = [*as_other, "run", "--detach", "--bundle", str(bundle.path), theirs]
        subprocess.run(run, stdin=null, stdout=null, stderr=null, check=True)
    try:
        listed = plain_runtime("list", "--quiet")
        assert listed.stdout.split() == [ours] and "another runtime" in listed.stderr
        before = sorted(os.listdir(plain_runtime.root / theirs))
        for args in (("delete", "--force"), ("delete",), ("kill",), ("state",), ("start",)):
            assert "another runtime" in plain_runtime.fails(*args, theirs).stderr
        assert sorted(os.listdir(plain_runtime.root / theirs)) == before
    finally:
        subprocess.run([*as_other, "delete", "--force", theirs], check=True)


@pytest.mark.parametrize(("file", "content"), [("status", '{"pid": 1}'), ("state.json", '{"id": "x", "pid": 1}')])
def test_what_crun_and_youki_have_made(runtime: Runtime, file: str, content: str) -> None:
    """Where their records have other names or keys, they are known by those."""
    directory = runtime.root / "x"
    directory.mkdir(parents=True)
    runtime.root.chmod(0o700)
    (directory / file).write_text(content)
    assert "another runtime" in runtime.fails("delete", "--force", "x").stderr
    assert os.listdir(directory) == [file]
    shutil.rmtree(directory)


def test_quiet_shows_ids(runtime: Runtime) -> None:
    """One on each line, sorted, whatever the format."""
    with container(runtime) as one, container(runtime) as two:
        assert runtime("list", "-q").stdout == "".join(f"{name}\n" for name in sorted([one.id, two.id]))
        assert runtime("list", "-q", "-f", "json").stdout.split() == sorted([one.id, two.id])


def test_an_empty_root(runtime: Runtime) -> None:
    """A header alone, null as Go writes a missing list, and no ids."""
    runtime.root.mkdir(mode=0o700)
    assert runtime("list").stdout.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert runtime("list", "-f", "json").stdout == "null\n"
    assert runtime("list", "-q").stdout == ""


def test_a_missing_root_that_was_named_is_an_error(runtime: Runtime) -> None:
    """It is more likely misspelt than empty."""
    assert "no such file or directory" in runtime.fails("list").stderr


def test_a_missing_default_root_is_empty(runtime: Runtime) -> None:
    """Nobody has made a container yet."""
    script = f"mount -t tmpfs tmpfs /run && exec {runtime.program} list"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout.split()[0], len(done.stdout.splitlines())) == (0, "ID", 1), done.stderr


def test_what_a_killed_command_left_is_shown(runtime: Runtime) -> None:
    """A container without a record can be seen, so that it can be deleted."""
    name = runtime.id()
    entry = Store(str(runtime.root)).create(name)
    entry.unlock()
    (row,) = runtime("list", "-f", "json").json
    assert (row["id"], row["status"], row["pid"]) == (name, "stopped", 0)
    with entry.lock():
        assert runtime("list", "-f", "json").json[0]["status"] == "creating"
    entry.remove()


def test_a_container_that_cannot_be_read_does_not_hide_the_others(runtime: Runtime) -> None:
    """It is told on standard error, and the list goes on."""
    with container(runtime) as good, container(runtime) as newer:
        newer.save(version=99)
        result = runtime("list", "-q")
        assert result.stdout.split() == [good.id]
        assert newer.id in result.stderr
        newer.save(version=1)


def test_containers_that_come_and_go_do_not_disturb(runtime: Runtime) -> None:
    """While others are made and deleted the list succeeds and shows what stays."""
    stop = threading.Event()
    store = Store(str(runtime.root))

    def churn() -> None:
        while not stop.is_set():
            with store.create(f"{runtime.token}-churn") as entry:
                entry.remove()

    with container(runtime) as stays:
        thread = threading.Thread(target=churn)
        thread.start()
        try:
            for _ in range(20):
                assert stays.id in runtime.ids()
        finally:
            stop.set()
            thread.join()


def test_other_things_in_the_root_are_no_containers(runtime: Runtime) -> None:
    """Files, links, and directories with names that no container has."""
    with container(runtime) as one:
        (runtime.root / "@cache").mkdir()
        (runtime.root / "file").touch()
        (runtime.root / "link").symlink_to(one.id)
        assert runtime.ids() == [one.id]
        for name in ("link", "file"):
            os.unlink(runtime.root / name)
        (runtime.root / "@cache").rmdir()
