"""A container and the service manager of whoever runs it: sd_notify(3) and socket activation, message by message.

`tests/integration/test_services.py` has the same under a real systemd.
"""

import os
import pathlib
import shutil
import signal
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.bundle import Bundle
from tests.support.loops import LOOPS, require
from tests.support.notified import Manager, compile_say
from tests.support.runtime import Runtime
from tests.support.terminal import on_terminal

SOCKET = "/run/notify/notify.sock"


@pytest.fixture
def manager(workplace: pathlib.Path) -> Iterator[Manager]:
    with Manager(str(workplace / "systemd")) as listening:
        yield listening


@pytest.fixture(scope="module")
def say(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return compile_say(tmp_path_factory.mktemp("say"))


@pytest.fixture
def service(bundle: Bundle, say: pathlib.Path) -> Bundle:
    """A bundle that has /bin/say."""
    shutil.copy(say, bundle.rootfs / "bin")
    return bundle


@pytest.fixture(params=["syscont", "plain"])
def mode(request: pytest.FixtureRequest) -> Runtime:
    """Both modes, one after the other."""
    runtime: Runtime = request.getfixturevalue("runtime" if request.param == "syscont" else "plain_runtime")
    return runtime


def told(manager: Manager, **more: str) -> dict[str, str]:
    """The environment of a command that `manager` has started."""
    return {**os.environ, "NOTIFY_SOCKET": manager.address, **more}


def test_the_foreground_passes_on_what_is_the_containers(mode: Runtime, service: Bundle, manager: Manager) -> None:
    """Its own state as it changes; neither another main process, nor descriptors, nor other lines."""
    script = [
        "say 'STATUS=starting' 'MAINPID=1\nREADY=1\nSTATUS=up' 'MAINPID=1' 'FDSTORE=1\nFDNAME=x' 'NOTIFYACCESS=all'",
        "say 'WATCHDOG=1\nX_FOO=1\nREADY' 'BARRIER=1' 'STATUS=\x1b[2J\x9b' 'STOPPING=1'",
        "env; stat -c '%a %F' $NOTIFY_SOCKET; touch /run/notify/x 2>&1; exit 7",
    ]
    service.process["env"].append("NOTIFY_SOCKET=/forged")
    service.sh("\n".join(script))
    args = ("run", "--bundle", service.path, mode.id())
    result = mode(*args, env=told(manager, WATCHDOG_USEC="5000000"), check=False)
    assert result.returncode == 7, repr(result)
    said = ["STATUS=starting", "READY=1\nSTATUS=up", "WATCHDOG=1", "STATUS=\\x1b[2J\\x9b", "STOPPING=1"]
    assert manager.pending() == said  # without what would steer the terminal of whoever looks at the service
    assert f"NOTIFY_SOCKET={SOCKET}\n" in result.stdout and "/forged" not in result.stdout
    assert "WATCHDOG_USEC=5000000\n" in result.stdout
    assert "777 socket" in result.stdout
    assert "Read-only file system" in result.stdout


def test_not_everybody_inside_speaks(mode: Runtime, service: Bundle, manager: Manager) -> None:
    """Another user of the container is not heard; nobody there has the service killed, or its limits moved."""
    (service.rootfs / "etc/passwd").write_text("root:x:0:0::/:/bin/sh\nother:x:1000:1000::/:/bin/sh\n")
    script = [
        "su other -c \"NOTIFY_SOCKET=$NOTIFY_SOCKET /bin/say 'STOPPING=1'\"",
        "say 'WATCHDOG=trigger' 'WATCHDOG_USEC=1000000000000' 'EXTEND_TIMEOUT_USEC=1000000000000' 'STATUS=root'",
    ]
    service.sh("\n".join(script))
    done = mode("run", "--bundle", service.path, mode.id(), env=told(manager), check=False)
    assert done.returncode == 0, done
    assert manager.pending() == ["STATUS=root"]


def test_the_user_of_init_speaks(mode: Runtime, service: Bundle, manager: Manager) -> None:
    """A program that runs as another user than root may say that it is ready."""
    service.process["user"] = {"uid": 1000, "gid": 1000}
    service.sh("say READY=1")
    mode("run", "--bundle", service.path, mode.id(), env=told(manager))
    assert manager.pending() == ["READY=1"]


def test_the_watchdog_of_another_process(plain_runtime: Runtime, service: Bundle, manager: Manager) -> None:
    """WATCHDOG_PID that is not the command's: nobody waits for this container."""
    service.sh("env; say READY=1")
    environment = told(manager, WATCHDOG_USEC="5000000", WATCHDOG_PID="1")
    assert "WATCHDOG" not in plain_runtime("run", "-b", service.path, plain_runtime.id(), env=environment).stdout


@pytest.mark.parametrize("loop", LOOPS)
def test_beside_a_terminal(
    plain_runtime: Runtime, service: Bundle, manager: Manager, monkeypatch: pytest.MonkeyPatch, loop: str
) -> None:
    """The relay of a terminal passes messages on as well, the last ones too."""
    require(loop)
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    service.process["terminal"] = True
    service.sh("say READY=1; echo go; read x; say STATUS=last; exit 3")
    with on_terminal(plain_runtime, "run", "--bundle", service.path, plain_runtime.id(), loop=loop) as terminal:
        assert manager.until("READY=1") == ["READY=1"]
        terminal.expect("go")
        terminal.line("")
        assert terminal.wait() == 3
    assert manager.pending() == ["STATUS=last"]


def test_detached_waits_until_it_is_ready(mode: Runtime, service: Bundle, manager: Manager) -> None:
    """`run -d` returns once the container has said so, and the manager knows init as the main process."""
    service.sh("say STATUS=soon; while [ ! -e /go ]; do sleep 0.02; done; say 'READY=1\nSTATUS=up'; exec sleep 1000")
    name = mode.id()
    running = mode.start_background("run", "--detach", "--bundle", service.path, name, env=told(manager))
    assert manager.until("STATUS=soon") == ["STATUS=soon"]
    assert running.process.poll() is None
    (service.rootfs / "go").touch()
    pid = mode.state(name)["pid"]
    assert manager.receive() == (f"MAINPID={pid}\nREADY=1\nSTATUS=up", [])
    text, (barrier,) = manager.receive()
    assert text == "BARRIER=1"
    time.sleep(0.05)
    assert running.process.poll() is None  # until the manager has worked it off
    os.close(barrier)
    assert running.wait().returncode == 0
    assert "NOTIFY_SOCKET" not in mode("exec", name, "/bin/sh", "-c", "env").stdout


def test_created_then_started(mode: Runtime, service: Bundle, manager: Manager) -> None:
    """`start` waits likewise where `create` has made a place for the socket; its manager may be another."""
    service.sh("say READY=1; exec sleep 1000")
    name = mode.id()
    mode("create", "--bundle", service.path, name, env={**os.environ, "NOTIFY_SOCKET": "@another"})
    running = mode.start_background("start", name, env=told(manager))
    pid = mode.state(name)["pid"]
    assert manager.until("BARRIER=1") == [f"MAINPID={pid}", "READY=1", "BARRIER=1"]
    assert running.wait().returncode == 0
    assert "cannot start an already running container" in mode.fails("start", name, env=told(manager)).stderr


def test_created_without(plain_runtime: Runtime, bundle: Bundle, manager: Manager) -> None:
    """A manager that waits for a container that cannot tell is no reason to wait, but for a word."""
    name = plain_runtime.id()
    plain_runtime("create", "--bundle", bundle.run("/bin/sleep", "1000").path, name)
    assert "created without NOTIFY_SOCKET" in plain_runtime("start", name, env=told(manager)).stderr
    assert manager.pending() == []


def test_an_end_before_it_is_ready(plain_runtime: Runtime, service: Bundle, manager: Manager) -> None:
    """Nobody waits for a container that has ended; what it said before is passed on."""
    name = plain_runtime.id()
    plain_runtime("run", "--detach", "-b", service.sh("say STATUS=bye").path, name, env=told(manager))
    assert manager.pending() == ["STATUS=bye"]
    plain_runtime.wait_status(name, "stopped")


def test_interrupted_while_it_waits(mode: Runtime, service: Bundle, manager: Manager) -> None:
    """SIGTERM to a `run -d` that waits takes the container down again."""
    name = mode.id()
    service.sh("say STATUS=soon; exec sleep 1000")
    running = mode.start_background("run", "--detach", "--bundle", service.path, name, env=told(manager))
    manager.until("STATUS=soon")
    running.process.send_signal(signal.SIGTERM)
    assert running.wait().returncode == 143
    assert mode.ids() == []


def test_a_flood_is_held_back(plain_runtime: Runtime, service: Bundle, manager: Manager) -> None:
    """A container that talks without end fills its own queue; signals and its end are heard all the same."""
    service.sh("trap 'exit 9' TERM; while :; do say READY=1 STATUS=1 STATUS=2 STATUS=3 STATUS=4; done")
    name = plain_runtime.id()
    running = plain_runtime.start_background("run", "--bundle", service.path, name, env=told(manager))
    manager.until("READY=1")
    time.sleep(1)
    assert len(manager.pending()) <= 64 * 4
    running.process.send_signal(signal.SIGTERM)
    while running.process.poll() is None:
        manager.pending()
    assert running.wait().returncode == 9


def test_a_long_state_root(workplace: pathlib.Path, service: Bundle, manager: Manager) -> None:
    """A path that is longer than a socket's address may be is no obstacle."""
    deep = workplace / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    runtime = Runtime(deep, "--no-syscont", "--no-sysvisor-fs")
    runtime("run", "--bundle", service.sh("say READY=1").path, runtime.id() + "x" * 200, env=told(manager))
    assert manager.pending() == ["READY=1"]


@pytest.mark.parametrize("address", ["vsock:2:1234", "", "relative"])
def test_a_manager_out_of_reach(plain_runtime: Runtime, bundle: Bundle, address: str) -> None:
    """An address that is no socket's here is as good as none."""
    environment = {**os.environ, "NOTIFY_SOCKET": address}
    bundle.sh("env; ls /run/notify 2>&1; true")
    assert "/run/notify:" in plain_runtime("run", "-b", bundle.path, plain_runtime.id(), env=environment).stdout


def test_a_manager_that_is_gone(plain_runtime: Runtime, service: Bundle, workplace: pathlib.Path) -> None:
    """Its container runs all the same; what could not be passed on is told."""
    environment = {**os.environ, "NOTIFY_SOCKET": str(workplace / "gone")}
    result = plain_runtime("run", "-b", service.sh("say READY=1").path, plain_runtime.id(), env=environment)
    assert f"NOTIFY_SOCKET '{workplace / 'gone'}': no such file or directory" in result.stderr


# ---- socket activation


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def activated(mode: Runtime, workplace: pathlib.Path) -> Runtime:
    """The runtime started as systemd does: LISTEN_PID is the process itself."""
    script = workplace / "activated"
    script.write_text(f'#!/bin/sh\nLISTEN_PID=${{PID:-$$}} exec {mode.program} "$@"\n')
    script.chmod(0o755)
    runtime = Runtime(workplace, *mode.flags, program=script)
    runtime.token = mode.token  # and mode looks for what is left
    return runtime


def handed(listener: socket.socket, **more: str) -> dict[str, Any]:
    """What Popen needs to hand `listener` over as descriptor 3, and a directory of the host as 4."""

    def hand_over() -> None:
        os.dup2(listener.fileno(), 3, inheritable=True)
        os.dup2(os.open("/", os.O_RDONLY), 4, inheritable=True)

    environment = {**os.environ, "LISTEN_FDS": "1", "LISTEN_FDNAMES": "web", **more}
    return {"close_fds": False, "preexec_fn": hand_over, "env": environment}


def ask(listener: socket.socket) -> str:
    with socket.create_connection(listener.getsockname(), timeout=30) as connection:
        return connection.recv(100).decode()


@pytest.mark.parametrize("detach", [False, True])
def test_sockets_are_handed_on(activated: Runtime, service: Bundle, listener: socket.socket, detach: bool) -> None:
    """Init gets the socket, its name, and LISTEN_PID as its own; nothing else of the caller's."""
    service.process["env"].append("LISTEN_FDS=7")
    service.sh("ls /proc/self/fd >/fds; exec say --accept")
    name = activated.id()
    flags = ("--detach",) if detach else ()
    running = activated.start_background("run", *flags, "--bundle", service.path, name, **handed(listener))
    assert ask(listener) == "web of 1 for 1\n"
    assert running.wait().returncode == 0
    assert (service.rootfs / "fds").read_text().split() == ["0", "1", "2", "3", "4"]  # 4: the directory that ls reads


def test_created_with_sockets(activated: Runtime, service: Bundle, listener: socket.socket) -> None:
    """`create` hands them on to the init that waits."""
    name = activated.id()
    activated("create", "--bundle", service.run("/bin/say", "--accept").path, name, **handed(listener))
    activated("start", name)
    assert ask(listener) == "web of 1 for 1\n"
    assert "LISTEN_" not in activated("state", name).stdout


def test_preserved_ones_come_behind(activated: Runtime, service: Bundle, listener: socket.socket) -> None:
    """--preserve-fds counts from after the sockets, as with runc."""
    service.sh("echo $LISTEN_FDS; [ -d /proc/self/fd/4/ ] && echo kept")
    args = ("run", "--preserve-fds", "1", "--bundle", service.path, activated.id())
    assert activated(*args, **handed(listener)).stdout == "1\nkept\n"


def test_sockets_of_somebody_else(activated: Runtime, service: Bundle, listener: socket.socket) -> None:
    """With another LISTEN_PID they are not for the container: neither descriptors nor variables."""
    service.sh("env; ls /proc/self/fd | wc -l")
    seen = activated("run", "--bundle", service.path, activated.id(), **handed(listener, PID="1")).stdout
    assert "LISTEN_" not in seen
    assert seen.endswith("\n4\n")


@pytest.mark.parametrize("count", ["3", "99999", "999999", "-1", "x", "²"])
def test_sockets_that_are_not_there(activated: Runtime, bundle: Bundle, listener: socket.socket, count: str) -> None:
    """A count beyond what is open, or none at all, is refused: a descriptor of ours must not stand in."""
    args = ("run", "--bundle", bundle.path, activated.id())
    result = activated.fails(*args, **handed(listener, LISTEN_FDS=count))
    expected = "descriptor 5 is not open" if count in ("3", "99999") else "is not a number of descriptors"
    assert expected in result.stderr
    assert not activated.root.exists()


def test_exec_gets_no_sockets(activated: Runtime, service: Bundle, listener: socket.socket) -> None:
    """They are the init's; `exec` has --preserve-fds."""
    name = activated.id()
    activated("run", "--detach", "--bundle", service.run("/bin/sleep", "1000").path, name)
    args = ("exec", name, "/bin/sh", "-c", "env; ls /proc/self/fd | wc -l")
    seen = activated(*args, **handed(listener)).stdout
    assert "LISTEN_" not in seen
    assert seen.endswith("\n4\n")
