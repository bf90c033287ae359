"""/proc/sys as a container is served it: on real namespaces, asked as its root, as others in it, and from within it."""

import contextlib
import errno
import os
import pathlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sysvisor_fs.node import Attributes, Caller, Directory, Node
from sysvisor_fs.nodes import sysctl_table as table
from sysvisor_fs.nodes.sysctl import Net, Plain, SysctlDirectory
from sysvisor_fs.nodes.sysctl_values import integers, unsigned
from sysvisor_fs.nodes.tree import build_tree
from sysvisor_fs.passthrough import deputy, enter, identity, instances, reach
from tests.support import fs_subject
from tests.support.fs_subject import Subject
from tests.support.runtime import wait_until

pytestmark = pytest.mark.root

TREE = build_tree()
HOST = pathlib.Path("/proc/sys")


@pytest.fixture(scope="module")
def one() -> Iterator[Subject]:
    """A container."""
    with fs_subject.subject() as subject:
        yield subject


@pytest.fixture(scope="module")
def other() -> Iterator[Subject]:
    """Another one, with ids of its own."""
    with fs_subject.subject(first=400000) as subject:
        yield subject


def read(subject: Subject, path: str, caller: Caller | None = None) -> str:
    who = caller or subject.root
    return fs_subject.file_at(TREE, subject.container, who, path).read(subject.container, who).decode().strip()


def write(subject: Subject, path: str, value: str, caller: Caller | None = None) -> None:
    """As open, write, close."""
    who = caller or subject.root
    file = fs_subject.file_at(TREE, subject.container, who, path)
    file.opened(subject.container, who, True)
    file.write(subject.container, who, value.encode())


def refusal(subject: Subject, path: str, value: str, caller: Caller | None = None) -> int:
    """The errno of a write that must fail."""
    with pytest.raises(OSError) as refused:
        write(subject, path, value, caller)
    assert refused.value.errno is not None
    return refused.value.errno


def host(path: str) -> str | None:
    try:
        return (HOST / path).read_text().strip()
    except OSError:
        return None


# ---- values


NAMESPACED = {
    "kernel/hostname": ("inside.example", "uts"),
    "kernel/domainname": ("nis.example", "uts"),
    "kernel/shmmax": ("123456", "ipc"),
    "kernel/msgmni": ("77", "ipc"),
    "kernel/sem": ("100\t3200\t50\t12", "ipc"),
    "fs/mqueue/queues_max": ("17", "ipc"),
    "net/core/somaxconn": ("321", "net"),
    "net/ipv4/ip_forward": ("1", "net"),
    "net/ipv4/tcp_rmem": ("4096\t5000\t6000", "net"),
    "net/unix/max_dgram_qlen": ("33", "net"),
}


@pytest.mark.parametrize("path", NAMESPACED)
def test_namespaced_by_the_kernel(one: Subject, other: Subject, path: str) -> None:
    """A write is the kernel's own, in the container's namespace: a reader in there sees it, others do not."""
    value, kind = NAMESPACED[path]
    if host(path) is None:
        pytest.skip(f"this kernel has no {path}; to force it: one that has")
    before, others = host(path), read(other, f"proc/sys/{path}")
    write(one, f"proc/sys/{path}", f"{value}\n")
    assert read(one, f"proc/sys/{path}") == value
    try:
        truth = enter.at(one.pid, kind, lambda: reach.read(instances.procfs(), f"sys/{path}")).decode()
    except FileNotFoundError:  # older kernels hide some from user namespaces: those are the container's own then
        truth = one.container.values[f"proc/sys/{path}"].decode()
    assert truth.strip() == value
    assert host(path) == before != value
    assert read(other, f"proc/sys/{path}") == others


def _another(path: str, row: table.Row) -> str:
    """A good value that is not the host's."""
    now = host(path)
    assert row.parse is not None
    for candidate in ("1", "0", "2", "4096", "262145", "fq", "sfq", "1000000"):
        try:
            row.parse(f"{now}\n".encode(), candidate.encode())
        except OSError:
            continue
        if candidate != (now or "").split()[0]:
            return candidate
    raise AssertionError(path)


def test_no_row_reaches_the_host(one: Subject, other: Subject) -> None:
    """Every row of the table that can be written is written: the value sticks, and only for this container."""
    changing = {"kernel/random/uuid", "kernel/ns_last_pid"}
    hosts = {path: host(path) for path in table.ROWS if path not in changing}
    written = {}
    for path, row in table.ROWS.items():
        if row.parse is None or hosts.get(path) is None or row.kind == table.PID:
            continue
        written[path] = value = _another(path, row)
        before = read(other, f"proc/sys/{path}")
        write(one, f"proc/sys/{path}", value)
        assert read(one, f"proc/sys/{path}").split()[0] == value, path
        assert read(other, f"proc/sys/{path}") == before, path
    assert len(written) > 10
    assert {path: host(path) for path in hosts} == hosts


def test_stored_values_are_judged(one: Subject) -> None:
    """EINVAL as from the kernel, and the old value stays."""
    write(one, "proc/sys/kernel/panic", "10")
    for bad in ("soon", "", "99999999999", "1x"):
        assert refusal(one, "proc/sys/kernel/panic", bad) == errno.EINVAL
    assert read(one, "proc/sys/kernel/panic") == "10"
    assert one.container.values["proc/sys/kernel/panic"] == b"10\n"


def test_hashsize_is_the_containers(one: Subject) -> None:
    """The module's parameter, which originals changed for the whole host."""
    path = pathlib.Path("/sys/module/nf_conntrack/parameters/hashsize")
    if not path.exists():
        pytest.skip("no nf_conntrack here; to force it: modprobe nf_conntrack")
    before = path.read_text()
    write(one, "sys/module/nf_conntrack/parameters/hashsize", "4096")
    assert read(one, "sys/module/nf_conntrack/parameters/hashsize") == "4096"
    assert path.read_text() == before


def test_ping_group_range_is_in_the_containers_groups(one: Subject) -> None:
    """Engines write `0 2147483647`: it means all groups that there are, and the kernel gets the host's numbers."""
    write(one, "proc/sys/net/ipv4/ping_group_range", "0 2147483647")
    assert read(one, "proc/sys/net/ipv4/ping_group_range") == "0\t65535"
    truth = enter.at(one.pid, "net", lambda: reach.read(instances.procfs(), "sys/net/ipv4/ping_group_range"))
    assert truth.split() == [b"300000", b"365535"]
    write(one, "proc/sys/net/ipv4/ping_group_range", "1 0")
    assert read(one, "proc/sys/net/ipv4/ping_group_range") == "1\t0"
    assert refusal(one, "proc/sys/net/ipv4/ping_group_range", "-1 5") == errno.EINVAL


def test_congestion_control_loads_no_module(one: Subject) -> None:
    """One that is not there is ENOENT: the daemon could load it for the whole host, and does not."""
    allowed = host("net/ipv4/tcp_allowed_congestion_control")
    assert allowed is not None
    write(one, "proc/sys/net/ipv4/tcp_congestion_control", allowed.split()[-1])
    assert refusal(one, "proc/sys/net/ipv4/tcp_congestion_control", "nosuch") == errno.ENOENT


def test_user_limits_are_the_user_namespaces(one: Subject, other: Subject) -> None:
    """/proc/sys/user is read and written in the caller's user namespace, by a process that leaves again."""
    path = "proc/sys/user/max_uts_namespaces"
    before, others = host("user/max_uts_namespaces"), read(other, path)
    write(one, path, "1234")
    assert read(one, path) == "1234"
    assert host("user/max_uts_namespaces") == before
    assert read(other, path) == others


def test_deputies_leave_when_nobody_asks(one: Subject) -> None:
    """A process in a user namespace is there while it is asked, gone and forgotten a while later, and made again."""
    path = "proc/sys/user/max_uts_namespaces"
    value = read(one, path)
    number = os.stat(f"/proc/{one.pid}/ns/user").st_ino
    assert deputy._waiting[number]
    deadline = time.monotonic() + 60
    while number in deputy._waiting:
        deputy.reap()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert read(one, path) == value


def test_a_deputy_that_has_gone_is_not_missed(one: Subject) -> None:
    """One that ends between two questions is replaced in the middle of the second."""
    path = "proc/sys/user/max_uts_namespaces"
    value = read(one, path)
    number = os.stat(f"/proc/{one.pid}/ns/user").st_ino
    deputy._waiting[number][-1].line.shutdown(socket.SHUT_RDWR)
    assert read(one, path) == value


def _deputies_in(pid: int) -> list[int]:
    """Pids of the daemon's processes in a task's pid namespace."""
    namespace, found = os.readlink(f"/proc/{pid}/ns/pid"), []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if pathlib.Path(f"/proc/{name}/comm").read_text() == "sysvisor-fs-ns\n":
                found += [int(name)] if os.readlink(f"/proc/{name}/ns/pid") == namespace else []
    return found


def test_a_stopped_deputy_is_killed(one: Subject) -> None:
    """A container can stop who answers for its pid namespace: the asker is told, and nobody is left behind."""
    fds = [os.open(f"/proc/{one.pid}/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("user", "pid")]
    with deputy._make(*fds) as line:
        for fd in fds:
            os.close(fd)
        wait_until(lambda: _deputies_in(one.pid) != [])
        (stopped,) = _deputies_in(one.pid)
        os.kill(stopped, signal.SIGSTOP)
        with pytest.raises((OSError, EOFError)):
            deputy.Deputy(line).ask(b"sys/kernel/pid_max")
    wait_until(lambda: _deputies_in(one.pid) == [])


def test_nursery_that_has_ended_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it there is an end to questions, which the daemon must not go on with."""
    deputy.prepare()
    assert deputy.is_able()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        monkeypatch.setattr(deputy, "_nursery", [ours])
        assert deputy.is_able()
        theirs.close()
        assert not deputy.is_able()


def test_pid_max(one: Subject) -> None:
    """The pid namespace's own from Linux 6.14 on, else stored; the host's is left alone either way."""
    before = host("kernel/pid_max")
    write(one, "proc/sys/kernel/pid_max", "5000")
    assert read(one, "proc/sys/kernel/pid_max") == "5000"
    assert refusal(one, "proc/sys/kernel/pid_max", "5") == errno.EINVAL
    assert host("kernel/pid_max") == before


def test_uuid_and_boot_id(one: Subject, other: Subject) -> None:
    """A new uuid at each read; a boot id that is the container's and stays."""
    assert read(one, "proc/sys/kernel/random/uuid") != read(one, "proc/sys/kernel/random/uuid")
    boot = read(one, "proc/sys/kernel/random/boot_id")
    assert boot == read(one, "proc/sys/kernel/random/boot_id")
    assert len({boot, read(other, "proc/sys/kernel/random/boot_id"), host("kernel/random/boot_id")}) == 3


# ---- who may


@pytest.fixture(scope="module")
def user(one: Subject) -> Caller:
    """Uid 1000 of the container."""
    return one.caller(uid=1000)


@pytest.fixture(scope="module")
def powerless(one: Subject) -> Caller:
    """Its root without any capability."""
    return one.caller("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--")


@pytest.fixture(scope="module")
def inner(one: Subject) -> Caller:
    """Root of a user namespace inside, with the same uid on the host, in the container's other namespaces."""
    return one.caller("unshare", "--user", "--map-root-user")


@pytest.fixture(scope="module")
def inner_net(one: Subject) -> Caller:
    """As `inner`, with a network and an IPC namespace of its own."""
    return one.caller("unshare", "--user", "--map-root-user", "--net", "--ipc")


PROBES = {
    "stored": ("proc/sys/kernel/panic_on_oops", "1"),
    "net": ("proc/sys/net/ipv4/ip_default_ttl", "99"),
    "net or stored": ("proc/sys/net/core/default_qdisc", "fq"),
    "ipc": ("proc/sys/kernel/msgmax", "9000"),
    "uts": ("proc/sys/kernel/hostname", "evil"),
}


@pytest.mark.parametrize("probe", PROBES)
def test_root_may(one: Subject, probe: str) -> None:
    """The container's root with its capabilities writes each kind."""
    write(one, *PROBES[probe])


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("who", ["user", "inner"])
def test_others_may_not(one: Subject, who: str, probe: str, request: pytest.FixtureRequest) -> None:
    """Neither another user, nor root of a user namespace inside, though the host knows it by the same uid."""
    caller = request.getfixturevalue(who)
    path, value = PROBES[probe]
    before = read(one, path)
    assert refusal(one, path, value, caller) == errno.EACCES
    # The write is judged by itself as well: a descriptor may be handed over.
    with pytest.raises(OSError) as refused:
        fs_subject.file_at(TREE, one.container, caller, path).write(one.container, caller, value.encode())
    assert refused.value.errno == errno.EPERM
    assert read(one, path) == before


def test_root_without_capabilities(one: Subject, powerless: Caller) -> None:
    """As in the kernel: network and names want a capability, IPC and the rest want root."""
    for probe in ("net", "uts"):
        assert refusal(one, *PROBES[probe], powerless) == errno.EACCES
    assert refusal(one, "proc/sys/user/max_net_namespaces", "1", powerless) == errno.EACCES
    for probe in ("stored", "ipc"):
        write(one, *PROBES[probe], powerless)
    with pytest.raises(PermissionError):
        write(one, "proc/sys/kernel/dmesg_restrict", "1", powerless)


def test_inner_namespaces_are_the_callers_own(one: Subject, inner_net: Caller) -> None:
    """Its own network and IPC namespace is what an inner container reads and writes; the rest stays closed."""
    outside = read(one, "proc/sys/net/ipv4/ip_default_ttl"), read(one, "proc/sys/kernel/msgmax")
    write(one, "proc/sys/net/ipv4/ip_default_ttl", "42", inner_net)
    write(one, "proc/sys/kernel/msgmax", "4242", inner_net)
    assert read(one, "proc/sys/net/ipv4/ip_default_ttl", inner_net) == "42"
    assert read(one, "proc/sys/kernel/msgmax", inner_net) == "4242"
    assert (read(one, "proc/sys/net/ipv4/ip_default_ttl"), read(one, "proc/sys/kernel/msgmax")) == outside
    for probe in ("stored", "uts"):
        assert refusal(one, *PROBES[probe], inner_net) == errno.EACCES
    found = fs_subject.node_at(TREE, one.container, inner_net, "proc/sys/net/ipv4/ip_forward")
    assert found.attributes(one.container, inner_net).uid == inner_net.uid


def test_unknown_caller_reads_and_never_writes(one: Subject) -> None:
    """One whose pid the daemon cannot see gets the container's view."""
    nobody = one.root._replace(pid=0)
    assert read(one, "proc/sys/kernel/hostname", nobody) == read(one, "proc/sys/kernel/hostname")
    for probe in PROBES.values():
        with pytest.raises(PermissionError):
            write(one, *probe, nobody)


def test_number_given_again_is_not_the_caller(one: Subject) -> None:
    """A caller that was killed while it waited: whoever has its number now does not write for it."""
    for path, value in PROBES.values():
        with pytest.raises(OSError) as refused:
            write(one, path, value, one.root._replace(uid=one.root.uid + 1000))
        assert refused.value.errno == errno.ESRCH


@pytest.mark.parametrize("path", [
    "proc/sys/kernel/hostname", "proc/sys/kernel/shmmax", "proc/sys/net/ipv4/ip_forward", "proc/sys/kernel/pid_max",
    "proc/sys/user/max_uts_namespaces", "proc/sys/kernel/panic", "proc/sys/net/core/somaxconn",
    "sys/devices/virtual/net/lo/mtu",
])  # fmt: skip
def test_who_was_let_go_is_not_acted_for(one: Subject, path: str) -> None:
    """A caller that a signal has woken may be gone, and its pid another's: nothing is written by a worker that is late.

    Its last moment is when its credentials have been read, so the rest has been taken by then.
    """
    before = read(one, path)
    assert refusal(one, path, "1234", one.root._replace(waits=lambda: False)) == errno.EINTR
    opens: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("open_namespace", "inode", "task", "_status"):
            patch.setattr(identity, name, _noting(opens, name))

        def last() -> bool:
            opens.clear()
            return True

        with contextlib.suppress(OSError):
            late = one.root._replace(waits=last)
            fs_subject.file_at(TREE, one.container, late, path).write(one.container, late, before.encode())
    assert opens == []
    assert read(one, path) == before


def _noting(into: list[str], name: str) -> Callable[..., object]:
    real = getattr(identity, name)

    def noted(*args: object) -> object:
        if args[0] != os.getpid():  # the way back from a visit
            into.append(name)
        return real(*args)

    return noted


def test_host_process_sees_the_container(one: Subject) -> None:
    """One that looks in from outside is shown the container's namespaces, never its own."""
    outsider = Caller(0, 0, os.getpid())
    assert read(one, "proc/sys/kernel/hostname", outsider) == read(one, "proc/sys/kernel/hostname")
    assert read(one, "proc/sys/net/core/somaxconn", outsider) == read(one, "proc/sys/net/core/somaxconn")


def test_hosts_own_namespace_is_never_entered(one: Subject) -> None:
    """Should a container's init be in the host's namespaces, nothing is read or written there."""
    outsider = Caller(0, 0, os.getpid())
    before, one.container.init_pid = one.container.init_pid, os.getpid()
    try:
        with pytest.raises(PermissionError):
            Net("net/ipv4/ip_forward").write(one.container, outsider, b"1")
    finally:
        one.container.init_pid = before


# ---- all of the tree


def test_closed_files_of_a_joined_namespace_stay_the_hosts(one: Subject) -> None:
    """What belongs to root is the container's root's in a namespace that its user namespace owns, else the host's."""
    closed, open_ = Attributes(0o100600, 0, 0, 0), Attributes(0o100644, 0, 0, 0)
    hosts, own = (os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for pid in (os.getpid(), one.pid))
    try:
        assert identity.owner_inside(one.container, hosts, closed).uid == 0
        assert identity.owner_inside(one.container, hosts, open_).uid == one.container.root_uid
        assert identity.owner_inside(one.container, own, closed).uid == one.container.root_uid
        assert identity.owner_inside(one.container, own, closed._replace(uid=5)).uid == 5
    finally:
        os.close(hosts)
        os.close(own)


def _walk(subject: Subject, path: str, node: Node) -> Iterator[tuple[str, Node]]:
    if not isinstance(node, Directory):
        yield path, node
        return
    for name, _ in node.names(subject.container, subject.root):
        yield from _walk(subject, f"{path}/{name}", node.lookup(subject.container, subject.root, name))


def test_every_entry_of_the_kernel_is_there(one: Subject) -> None:
    """Each file that a reader in the container's namespaces finds is served, with its content's kind."""
    served = dict(_walk(one, "", SysctlDirectory()))
    listed = enter.at(one.pid, "net", lambda: [
        os.path.join(top, name)
        for top, _, names in os.walk(f"/proc/self/fd/{instances.procfs()}/sys") for name in names
    ])  # fmt: skip
    found = {f"/{path.partition('/sys/')[2]}" for path in listed}
    assert found - set(served) == set()
    extra = {path[1:] for path in set(served) - found}
    assert extra <= set(table.ROWS), extra


def test_nothing_plain_may_be_written(one: Subject) -> None:
    """What is the whole machine's is closed to a container's root: no write bit, refused at open and at write."""
    count = 0
    for path, node in _walk(one, "", SysctlDirectory()):
        if not isinstance(node, Plain):
            continue
        count += 1
        found: Attributes = node.attributes(one.container, one.root)
        assert found.mode & 0o222 == 0, path
        # What others may not read on the host belongs to the host's root, whom a container does not have.
        assert found.uid == (one.root.uid if found.mode & 0o004 else 0), path
        with pytest.raises(PermissionError):
            node.opened(one.container, one.root, True)
        with pytest.raises(PermissionError):
            node.write(one.container, one.root, b"0")
    assert count > 100


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "nosuch", "x\0y"])
def test_names_stay_in_their_directory(one: Subject, name: str) -> None:
    """No name leads out, whatever a request says."""
    for directory in (SysctlDirectory("kernel"), SysctlDirectory("net")):
        with pytest.raises(FileNotFoundError):
            directory.lookup(one.container, one.root, name)


# ---- threads


def test_threads_come_home(one: Subject, other: Subject) -> None:
    """Many threads at once in two containers: each gets its container's value, and is back where it was."""
    write(one, "proc/sys/net/ipv4/ip_default_ttl", "11")
    write(other, "proc/sys/net/ipv4/ip_default_ttl", "22")
    home = os.readlink("/proc/thread-self/ns/net")
    wrong: list[str] = []

    def work(subject: Subject, expected: str) -> None:
        for _ in range(100):
            found = read(subject, "proc/sys/net/ipv4/ip_default_ttl")
            if found != expected or os.readlink("/proc/thread-self/ns/net") != home:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=both) for both in ((one, "11"), (other, "22")) * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_visit_that_fails_comes_home(one: Subject) -> None:
    """An error inside is the caller's, and the thread is back."""
    home = os.readlink("/proc/thread-self/ns/net")
    with pytest.raises(ZeroDivisionError):
        enter.at(one.pid, "net", lambda: 1 // 0)
    assert os.readlink("/proc/thread-self/ns/net") == home


# ---- our judgement and the kernel's


TEXTS = st.one_of(
    st.integers(-(1 << 34), 1 << 34).map(lambda n: str(n).encode()),
    st.text("0123456789-+xXafg \t\n.", min_size=1, max_size=26).map(str.encode),
)
LIKE_KERNEL: dict[str, tuple[str, str, Callable[[bytes, bytes], bytes]]] = {
    "net/ipv4/igmp_max_memberships": ("net", "20", integers()),
    "net/ipv4/tcp_rmem": ("net", "4096 131072 6291456", integers(1, count=3)),
    "kernel/shmall": ("ipc", "1000", unsigned()),
}


@pytest.mark.parametrize("path", LIKE_KERNEL)
def test_judges_as_the_kernel(one: Subject, path: str) -> None:
    """Whatever is written, our parser takes and refuses what this kernel takes and refuses, with the same result."""
    kind, start, parse = LIKE_KERNEL[path]
    where = f"sys/{path}"

    def put(text: bytes) -> None:
        try:
            reach.write(instances.procfs(), where, text)
        except PermissionError:
            enter.as_uid(one.root.uid, lambda: reach.write(instances.procfs(), where, text))

    def ask(text: bytes) -> bytes | int | None:
        put(start.encode())
        try:
            put(text)
        except OSError as error:
            return error.errno
        return reach.read(instances.procfs(), where)

    if path == "net/ipv4/tcp_rmem" and enter.at(one.pid, kind, lambda: ask(b"1")) == errno.EINVAL:
        parse = integers(4096, count=3)  # older kernels want a page at least

    @settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS)
    def judge(text: bytes) -> None:
        theirs = enter.at(one.pid, kind, lambda: ask(text))
        try:
            ours: bytes | int | None = parse(("\t".join(start.split()) + "\n").encode(), text)
        except OSError as error:
            ours = error.errno
        assert ours == theirs, text

    judge()
