"""seccomp as a container's process meets it: actions, conditions, flags, and an agent that answers for the kernel."""

import array
import contextlib
import fcntl
import json
import os
import pathlib
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from sysvisor_runc.kernel.libseccomp import seccomp_syscall_resolve_name
from tests.support.bundle import Bundle
from tests.support.inside import listening, observe, start, status, user_namespace
from tests.support.runtime import Runtime, wait_until

SIGSYS = 31
# <linux/seccomp.h>
NOTIF_RECV = 0xC0502100
NOTIF_SEND = 0xC0182101
FLAG_CONTINUE = 1
# What a static busybox and the way to it need.
NEEDED = """
access arch_prctl brk capget capset chdir clone close close_range dup2 dup3 execve exit exit_group fchdir fcntl fork
fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getpgrp getpid getppid getrandom getuid ioctl lseek lstat
mmap mprotect munmap newfstatat open openat pipe pipe2 poll prctl pread64 prlimit64 read readlink rseq rt_sigaction
rt_sigprocmask rt_sigreturn seccomp set_robust_list set_tid_address setgroups setresgid setresuid setsid sigaltstack
stat statx umask uname vfork wait4 write writev
"""


def profile(bundle: Bundle, *rules: dict[str, Any], default: str = "SCMP_ACT_ALLOW", **fields: Any) -> None:
    bundle.linux["seccomp"] = {"defaultAction": default, "syscalls": list(rules), **fields}


def rule(action: str, *names: str, **fields: Any) -> dict[str, Any]:
    return {"names": list(names), "action": f"SCMP_ACT_{action}", **fields}


@pytest.mark.parametrize("userns", [False, True])
@pytest.mark.parametrize("no_new_privs", [False, True])
def test_errno(plain_runtime: Runtime, bundle: Bundle, no_new_privs: bool, userns: bool) -> None:
    """EPERM unless told otherwise; the rest works; the filter is there for processes that join."""
    if userns:
        user_namespace(bundle)
    bundle.process["noNewPrivileges"] = no_new_privs
    profile(bundle, rule("ERRNO", "mkdir", "mkdirat"), rule("ERRNO", "link", "linkat", errnoRet=28))
    name, pid = start(plain_runtime, bundle)
    assert status(pid)["Seccomp"] == "2"
    script = "mkdir /tmp/x; ln /bin/busybox /tmp/y; echo rest"
    seen = plain_runtime("exec", name, "/bin/sh", "-c", script)
    assert "not permitted" in seen.stderr and "No space left" in seen.stderr and seen.stdout == "rest\n"


def test_an_allow_list(plain_runtime: Runtime, bundle: Bundle) -> None:
    """What is not on it fails with defaultErrnoRet; a call newer than the list with ENOSYS, for fallbacks to work."""
    profile(bundle, rule("ALLOW", *NEEDED.split()), default="SCMP_ACT_ERRNO", defaultErrnoRet=13)
    seen = observe(plain_runtime, bundle, mkdir="mkdir /tmp/x; true", fine="echo fine")
    assert "ermission denied" in seen["mkdir"] and seen["fine"] == "fine"


@pytest.mark.parametrize("action", ["KILL", "KILL_THREAD", "KILL_PROCESS", "TRAP"])
def test_actions_that_end_the_program(plain_runtime: Runtime, bundle: Bundle, action: str) -> None:
    """By SIGSYS."""
    profile(bundle, rule(action, "mkdir", "mkdirat"))
    bundle.sh("/bin/busybox mkdir /tmp/x; echo $?")
    seen = plain_runtime("run", "--bundle", bundle.path, plain_runtime.id())
    assert seen.stdout.split()[-1] == str(128 + SIGSYS)


def test_actions_that_let_it_pass(plain_runtime: Runtime, bundle: Bundle) -> None:
    """LOG does; TRACE without a tracer answers ENOSYS."""
    profile(bundle, rule("LOG", "mkdir", "mkdirat"), rule("TRACE", "link", "linkat"))
    seen = observe(plain_runtime, bundle, log="mkdir /tmp/x && echo made", trace="ln /bin/busybox /tmp/y; true")
    assert seen["log"] == "made" and "not implemented" in seen["trace"]


def test_conditions_on_arguments(plain_runtime: Runtime, bundle: Bundle) -> None:
    """kill(2) with certain signals: equal, in a mask, and both conditions of a rule together."""
    profile(
        bundle,
        rule("ERRNO", "kill", args=[{"index": 1, "value": 10, "op": "SCMP_CMP_EQ"}]),
        rule(
            "ERRNO", "kill", errnoRet=28, args=[{"index": 1, "value": 0xFF, "valueTwo": 12, "op": "SCMP_CMP_MASKED_EQ"}]
        ),
        rule("ERRNO", "umask", errnoRet=1, args=[{"index": 0, "value": 0o70, "op": "SCMP_CMP_GE"}]),
    )
    seen = observe(
        plain_runtime,
        bundle,
        usr1="kill -USR1 $$; true",
        usr2="kill -USR2 $$; true",
        zero="kill -0 $$ && echo ok",
        mask="umask 022; umask",
    )
    assert "not permitted" in seen["usr1"] and "No space left" in seen["usr2"]
    assert (seen["zero"], seen["mask"]) == ("ok", "0022")


@pytest.mark.parametrize(
    "flags", [None, [], ["SECCOMP_FILTER_FLAG_LOG"], ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"], ["SECCOMP_FILTER_FLAG_TSYNC"]]
)
def test_flags(plain_runtime: Runtime, bundle: Bundle, flags: list[str] | None) -> None:
    """Each loads; without a list the mitigations are left to the caller's setting, as runc does."""
    profile(bundle, rule("ERRNO", "mkdir", "mkdirat"))
    if flags is not None:
        bundle.linux["seccomp"]["flags"] = flags
    assert "not permitted" in observe(plain_runtime, bundle, mkdir="mkdir /tmp/x; true")["mkdir"]


def test_start_container_hooks_are_filtered(plain_runtime: Runtime, bundle: Bundle) -> None:
    """They are programs of the rootfs, with no more rights than the container's own."""
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/mkdir", "args": ["mkdir", "/tmp/by-hook"]}]}
    profile(bundle, rule("ERRNO", "mkdir", "mkdirat"))
    bundle.run("/bin/true")
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "startContainer hook #0" in error and "not permitted" in error


class Agent:
    """Answers for the kernel, as `listenerPath` names it: takes listeners, calls `answer` for every notification.

    Attributes: `messages`, the ContainerProcessState of each listener.
    """

    def __init__(self, server: socket.socket, answer: Callable[[int, int], tuple[int, int, int]]) -> None:
        self.server = server
        self.answer = answer
        self.messages: list[dict[str, Any]] = []
        self.errors: list[BaseException] = []
        self.thread = threading.Thread(target=self._serve, daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the socket is closed at the end
            while True:
                connection, _ = self.server.accept()
                with connection:
                    data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(4))
                    while part := connection.recv(1 << 16):
                        data += part
                self.messages.append(json.loads(data))
                listener = array.array("i", ancillary[0][2][:4])[0]
                threading.Thread(target=self._answer, args=(listener,), daemon=True).start()

    def _answer(self, listener: int) -> None:
        """struct seccomp_notif is id, pid, flags, then seccomp_data (nr, arch, ip, six arguments)."""
        try:
            while True:
                request = bytearray(80)
                fcntl.ioctl(listener, NOTIF_RECV, request)
                identity, pid, _, number = struct.unpack_from("QIIi", request)
                value, error, flags = self.answer(number, pid)
                fcntl.ioctl(listener, NOTIF_SEND, bytearray(struct.pack("QqiI", identity, value, error, flags)))
        except OSError:
            os.close(listener)  # ENOENT or EOF: everybody with that filter has ended


@pytest.fixture
def agent_socket(bundle: Bundle) -> Iterator[tuple[pathlib.Path, socket.socket]]:
    with listening(bundle.path / "agent") as server:
        yield bundle.path / "agent", server


@pytest.mark.parametrize("no_new_privs", [False, True])
@pytest.mark.parametrize("userns", [False, True])
def test_an_agent_answers(
    plain_runtime: Runtime,
    bundle: Bundle,
    agent_socket: tuple[pathlib.Path, socket.socket],
    no_new_privs: bool,
    userns: bool,
) -> None:
    """For init and for processes that join, each with a listener of its own and the state beside it."""
    if userns:
        user_namespace(bundle)
    path, server = agent_socket
    mkdirs = {seccomp_syscall_resolve_name(name) for name in ("mkdir", "mkdirat")}

    def answer(number: int, pid: int) -> tuple[int, int, int]:
        return (0, -122, 0) if number in mkdirs else (0, 0, FLAG_CONTINUE)  # EDQUOT: nothing else would say so

    agent = Agent(server, answer)
    bundle.process["noNewPrivileges"] = no_new_privs
    bundle.config["annotations"] = {"a": "b"}
    notify = rule("NOTIFY", "mkdir", "mkdirat", "uname")
    profile(bundle, notify, listenerPath=str(path), listenerMetadata="some metadata")
    bundle.sh("mkdir /tmp/x 2>/tmp/said; uname -s >/tmp/name; sleep 1000")
    (bundle.rootfs / "tmp").chmod(0o1777)
    name = plain_runtime.id()
    plain_runtime("create", "--bundle", bundle.path, name)
    plain_runtime("start", name)
    pid = plain_runtime.state(name)["pid"]
    seen = plain_runtime("exec", name, "/bin/sh", "-c", "mkdir /tmp/y; uname -s", check=False)
    assert "uota" in seen.stderr and seen.stdout == "Linux\n"
    first, second = agent.messages
    assert (first["fds"], first["pid"], first["metadata"]) == (["seccompFd"], pid, "some metadata")
    state = {"id": name, "bundle": str(bundle.path), "annotations": {"a": "b"}, "pid": pid}
    assert first["state"].items() >= {**state, "status": "creating"}.items()
    assert second["state"].items() >= {**state, "status": "running"}.items()
    assert second["pid"] != pid
    assert "uota" in plain_runtime("exec", name, "/bin/cat", "/tmp/said").stdout


def test_an_agent_and_start_hooks(
    plain_runtime: Runtime, bundle: Bundle, agent_socket: tuple[pathlib.Path, socket.socket]
) -> None:
    """The listener is handed over while the container is created; hooks of its start come later."""
    path, server = agent_socket
    agent = Agent(server, lambda number, pid: (0, 0, FLAG_CONTINUE))
    profile(bundle, rule("NOTIFY", "mkdir", "mkdirat"), listenerPath=str(path))
    bundle.config["hooks"] = {"startContainer": [{"path": "/bin/touch", "args": ["touch", "/tmp/by-hook"]}]}
    bundle.sh("mkdir /tmp/made; ls /tmp >/tmp/seen; sleep 1000")
    name = plain_runtime.id()
    plain_runtime("create", "--bundle", bundle.path, name)
    wait_until(lambda: agent.messages, what="the agent's first listener")
    plain_runtime("start", name)
    seen = bundle.rootfs / "tmp/seen"
    wait_until(lambda: seen.exists() and seen.read_text(), what="the program's output")
    assert {"by-hook", "made"} <= set(seen.read_text().split())


def test_no_agent(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Nobody listens: the container is not made."""
    profile(bundle, rule("NOTIFY", "mkdir"), listenerPath=str(bundle.path / "nobody"))
    bundle.run("/bin/true")
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "failed to connect with seccomp agent" in error


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "default action"),
        ({"syscalls": [rule("NOTIFY", "write")]}, "write"),
        ({"syscalls": [rule("NOTIFY", "mkdir")]}, "listenerPath"),
        ({"flags": ["SECCOMP_FILTER_FLAG_FROM_THE_FUTURE"]}, "linux.seccomp.flags"),
        ({"architectures": ["SCMP_ARCH_PDP11"]}, "linux.seccomp.architectures"),
        ({"syscalls": [rule("EXPLODE", "mkdir")]}, "linux.seccomp.syscalls[0].action"),
    ],
)
def test_profiles_that_cannot_be(plain_runtime: Runtime, bundle: Bundle, change: dict[str, Any], words: str) -> None:
    """Told with their place in the configuration."""
    profile(bundle)
    bundle.linux["seccomp"].update(change)
    bundle.run("/bin/true")
    assert words in plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
