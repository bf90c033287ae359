"""`install` and `doctor`: what people run once on a new machine."""

import itertools
import json
import os
import pathlib
import stat
import subprocess

import pytest

from tests.support.runtime import PROGRAM, Result


@pytest.fixture
def config(tmp_path: pathlib.Path) -> pathlib.Path:
    return tmp_path / "engine/daemon.json"


def run(*args: str, **popen: object) -> Result:
    done = subprocess.run([str(PROGRAM), *args], capture_output=True, text=True, timeout=60, **popen)  # type: ignore[call-overload]  # keywords of subprocess
    return Result([*args], done.returncode, done.stdout, done.stderr)


def install(config: pathlib.Path, *args: str) -> Result:
    return run("install", "--docker", "--config", str(config), *args)


def test_install_a_new_file(config: pathlib.Path) -> None:
    """Where the engine had no file one is made, and --uninstall takes it away again."""
    assert "systemctl restart docker" in install(config).stdout
    assert json.loads(config.read_text())["runtimes"]["sysvisor-runc"] == {"path": str(PROGRAM)}
    assert install(config).stdout == f"{config}: nothing to change\n"
    assert install(config, "--uninstall").returncode == 0
    assert list(config.parent.iterdir()) == []
    assert install(config, "--uninstall").stdout == f"{config}: nothing to change\n"


def test_install_keeps_a_backup(config: pathlib.Path) -> None:
    """The first change keeps what was there, with owner and mode; later ones keep that."""
    config.parent.mkdir()
    config.write_text('{"debug": true}')
    config.chmod(0o600)
    os.chown(config, 1000, 1000) if os.geteuid() == 0 else None
    before = config.stat()
    for args in ([], ["--default"], ["--uninstall"], []):
        assert install(config, *args).returncode == 0
    backup = config.with_name("daemon.json.before-sysvisor-runc")
    assert backup.read_text() == '{"debug": true}'
    for path in (config, backup):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert path.stat().st_uid == before.st_uid
    assert len(list(config.parent.iterdir())) == 2


def test_install_follows_a_link(config: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A configuration that is a symbolic link stays one."""
    config.parent.mkdir()
    (tmp_path / "real.json").write_text("{}")
    config.symlink_to(tmp_path / "real.json")
    install(config)
    assert config.is_symlink()
    assert "sysvisor-runc" in (tmp_path / "real.json").read_text()


def test_install_dry_run(config: pathlib.Path) -> None:
    """--dry-run shows a diff and does nothing."""
    config.parent.mkdir()
    config.write_text("{}\n")
    shown = install(config, "--dry-run").stdout
    assert f"+++ {config}" in shown
    assert '+        "sysvisor-runc": {' in shown
    assert config.read_text() == "{}\n"
    assert len(list(config.parent.iterdir())) == 1


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ([], "name an engine: --docker, --containerd, --podman, --crio"),
        (["--docker", "--podman", "--config", "/tmp/x"], "--config is for one engine"),
        (["--docker", "--default", "--uninstall"], "cannot be combined"),
        (["--docker", "--config", "/proc/version"], "not JSON"),
        (["--docker", "--config", "/proc/self/none/x.json"], "no such file"),
        (["--docker", "--config", "/"], "is a directory"),
        (["something"], "requires exactly 0 argument"),
    ],
)
def test_install_refuses(args: list[str], text: str) -> None:
    """What cannot be is told in one line."""
    result = run("install", *args)
    assert result.returncode != 0
    assert text in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor() -> None:
    """The table has a line for each finding, and for each that is not fine one more that says what to do."""
    result = run("doctor")
    assert result.returncode == 0, repr(result)
    lines = result.stdout.splitlines()
    assert lines[0].startswith("✓ kernel")
    assert any(line.startswith("✓ overlays of ID-mapped layers") for line in lines)
    for line, following in itertools.pairwise(lines):
        if line.startswith("–"):
            assert following.lstrip().startswith("→")


def test_doctor_json() -> None:
    """--json has the same, for programs; it leaves nothing behind."""
    found = run("doctor", "--json").json
    assert {"what", "status", "found", "fix"} == set(found[0])
    assert {row["status"] for row in found} <= {"ok", "limited", "missing"}
    names = {row["what"] for row in found}
    inotify = int(pathlib.Path("/proc/sys/fs/inotify/max_user_instances").read_text())
    assert [row["status"] for row in found if row["what"] == "inotify instances"] == [
        "limited" if inotify < 1024 else "ok"
    ]
    assert names >= {"kernel", "user namespaces", "cgroups", "id ranges", "seccomp", "FUSE", "CRIU", "security modules"}
    assert not list(pathlib.Path("/var/lib").glob(".sysvisor-doctor-*"))


@pytest.mark.parametrize("uid", [1000, 64124])
def test_doctor_of_an_ordinary_user(uid: int) -> None:
    """Without privileges it looks at what that user needs, known to the host or not, and each line has its fix."""
    result = run("doctor", "--json", user=uid, group=uid, extra_groups=[])
    assert result.stderr == ""
    found = {row["what"]: row for row in result.json}
    assert f"uid {uid} without CAP_SYS_ADMIN" in found["privileges"]["found"]
    assert {"user namespaces", "id ranges", "delegated cgroups"} <= set(found)
    assert "usermod" in found["id ranges"]["fix"] or found["id ranges"]["status"] == "ok"
    assert [row for row in found.values() if row["status"] != "ok" and not row["fix"]] == []


def test_doctor_in_a_user_namespace() -> None:
    """Root of a user namespace, as in a container, is no root of the host, and is told so without a stumble."""
    done = subprocess.run(
        ["unshare", "-Ur", str(PROGRAM), "doctor", "--json"], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert found["privileges"]["found"] == "root of a user namespace"
    assert found["user namespaces"]["status"] == "ok"
    assert [row for row in found.values() if row["status"] != "ok" and not row["fix"]] == []


def test_doctor_in_a_chroot(tmp_path: pathlib.Path) -> None:
    """There the kernel makes no user namespace: that is the one thing told to be missing, and why."""
    script = f'mount --rbind / {tmp_path} && exec chroot {tmp_path} "$@"'
    argv = ["unshare", "-m", "sh", "-c", script, "sh", str(PROGRAM), "doctor", "--json"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and done.stderr == ""
    found = {row["what"]: row for row in json.loads(done.stdout)}
    assert [what for what, row in found.items() if row["status"] == "missing"] == ["user namespaces"]
    assert "chroot" in found["user namespaces"]["fix"]
    assert not [what for what in found if "map" in what]  # what needs one is not looked at
