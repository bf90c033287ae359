"""Every rule between fields: what is refused, under which JSON path and in which words, and what must not be."""

import copy
import json
import os
import pathlib
from collections.abc import Mapping

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.special import parse_ids
from sysvisor_runc.spec.validate import validate, validate_process, validate_resources

FULL = json.loads((pathlib.Path(__file__).parents[2] / "data" / "full-config.json").read_text())
MINIMAL = {"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["sh"], "user": {}}}
MAP = [{"containerID": 0, "hostID": 100000, "size": 65536}]
DELETED = object()


def changed(base: Mapping[str, object], changes: Mapping[str, object]) -> dict[str, object]:
    """A copy with values set by dotted path, such as `linux.namespaces`; missing objects are made."""
    value = copy.deepcopy(dict(base))
    for path, new in changes.items():
        *parents, last = path.split(".")
        holder = value
        for key in parents:
            holder = holder.setdefault(key, {})  # type: ignore[assignment]  # objects all the way
        if new is DELETED:
            holder.pop(last, None)
        else:
            holder[last] = new
    return value


def spaces(*kinds: str) -> list[dict[str, str]]:
    return [{"type": kind} for kind in kinds]


REFUSED = [
    # what is changed in a minimal configuration · JSON path · words
    ({"ociVersion": "2.0.0"}, "ociVersion", "unsupported version '2.0.0'"),
    ({"ociVersion": "0.5.0"}, "ociVersion", "unsupported version"),
    ({"ociVersion": ""}, "ociVersion", "unsupported version"),
    ({"ociVersion": DELETED}, "ociVersion", "required but missing"),
    ({"root": DELETED}, "root", "root must be specified"),
    ({"root": None}, "root", "root must be specified"),
    ({"root.path": ""}, "root.path", "must not be empty"),
    ({"process": DELETED}, "process", "process property must not be empty"),
    ({"process.cwd": ""}, "process.cwd", "Cwd property must not be empty"),
    ({"process.cwd": "tmp"}, "process.cwd", "Cwd must be an absolute path"),
    ({"process.args": []}, "process.args", "args must not be empty"),
    ({"process.args": DELETED}, "process.args", "args must not be empty"),
    ({"process.args": ["a\0b"]}, "process.args[0]", "NUL"),
    ({"process.args": ["a", 1]}, "process.args[1]", "expected a string, got 1"),
    ({"process.env": ["A=1", "B"]}, "process.env[1]", "missing '='"),
    ({"process.env": ["=x"]}, "process.env[0]", "name cannot be empty"),
    ({"process.user.uid": -1}, "process.user.uid", "-1 is out of range, expected 0 to 4294967295"),
    ({"process.user.uid": 1.0}, "process.user.uid", "expected an integer, got 1.0"),
    ({"process.user.uid": True}, "process.user.uid", "expected an integer, got true"),
    ({"process.oomScoreAdj": 1001}, "process.oomScoreAdj", "out of range"),
    ({"process.rlimits": [{"type": "RLIMIT_X"}]}, "process.rlimits[0].type", 'unknown value "RLIMIT_X"'),
    (
        {"process.rlimits": [{"type": "RLIMIT_CPU"}, {"type": "RLIMIT_CPU"}]},
        "process.rlimits[1].type",
        "RLIMIT_CPU is given twice",
    ),
    ({"process.rlimits": [{"type": "RLIMIT_CPU", "soft": 2, "hard": 1}]}, "process.rlimits[0]", "above the hard"),
    ({"process.scheduler": {"policy": "SCHED_X"}}, "process.scheduler.policy", "unknown value"),
    ({"process.scheduler": {"policy": "SCHED_OTHER", "nice": 20}}, "process.scheduler.nice", "invalid scheduler.nice"),
    (
        {"process.scheduler": {"policy": "SCHED_OTHER", "priority": 1}},
        "process.scheduler.priority",
        "scheduler.priority can only be specified for",
    ),
    ({"process.scheduler": {"policy": "SCHED_FIFO", "period": 1}}, "process.scheduler", "SCHED_DEADLINE policy"),
    (
        {"process.ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 8}},
        "process.ioPriority.priority",
        "invalid ioPriority.Priority: 8",
    ),
    ({"process.ioPriority": {"class": "BE"}}, "process.ioPriority.class", "unknown value"),
    ({"process.execCPUAffinity": {"initial": "a"}}, "process.execCPUAffinity.initial", "'a' is not a number"),
    ({"process.execCPUAffinity": {"final": "3-1"}}, "process.execCPUAffinity.final", "invalid range"),
    ({"hostname": "x"}, "hostname", "unable to set hostname without a private UTS namespace"),
    ({"domainname": "x"}, "domainname", "unable to set domainname without a private UTS namespace"),
    ({"hostname": "x" * 65, "linux.namespaces": spaces("uts")}, "hostname", "longer than 64 bytes"),
    ({"linux.namespaces": spaces("pid", "net")}, "linux.namespaces[1].type", 'unknown value "net"'),
    ({"linux.namespaces": spaces("pid", "pid")}, "linux.namespaces[1].type", "duplicated ns 'pid'"),
    ({"linux.maskedPaths": ["/x"]}, "linux.maskedPaths", "without a private MNT namespace"),
    ({"linux.readonlyPaths": ["/x"]}, "linux.readonlyPaths", "without a private MNT namespace"),
    ({"linux.uidMappings": MAP}, "linux.uidMappings", "user namespace isn't enabled"),
    ({"linux.gidMappings": []}, "linux.gidMappings", "user namespace isn't enabled"),
    ({"linux.namespaces": spaces("user")}, "linux.namespaces", "no namespace path to join nor mappings"),
    (
        {"linux.namespaces": spaces("user"), "linux.uidMappings": MAP},
        "linux.gidMappings",
        "user namespaces enabled, but no gid mappings found",
    ),
    (
        {
            "linux.namespaces": spaces("user"),
            "linux.uidMappings": [{"containerID": 1, "size": 1}],
            "linux.gidMappings": MAP,
        },
        "linux.uidMappings",
        "no mapping found for uid 0",
    ),
    (
        {"linux.namespaces": spaces("user"), "linux.uidMappings": [{"size": 0}], "linux.gidMappings": MAP},
        "linux.uidMappings[0].size",
        "must not be 0",
    ),
    (
        {"linux.namespaces": spaces("user"), "linux.uidMappings": [{"size": 2**32 - 1}] * 2, "linux.gidMappings": MAP},
        "linux.uidMappings",
        "overlap",
    ),
    (
        {
            "linux.namespaces": spaces("user"),
            "linux.uidMappings": [{"hostID": 2**32 - 1, "size": 1}],
            "linux.gidMappings": MAP,
        },
        "linux.uidMappings[0]",
        "beyond the last id",
    ),
    (
        {
            "linux.namespaces": spaces("user"),
            "linux.uidMappings": [{"containerID": i, "hostID": i, "size": 1} for i in range(341)],
            "linux.gidMappings": MAP,
        },
        "linux.uidMappings",
        "341 ranges",
    ),
    ({"linux.timeOffsets": {"boottime": {"secs": 1}}}, "linux.timeOffsets", "time namespace isn't enabled"),
    ({"linux.timeOffsets": {"realtime": {}}}, "linux.timeOffsets", "unknown clock 'realtime'"),
    (
        {"linux.timeOffsets": {"boottime": {}}, "linux.namespaces": [{"type": "time", "path": "/x"}]},
        "linux.timeOffsets",
        "you may only provide one",
    ),
    ({"linux.netDevices": {"eth0": {}}}, "linux.netDevices", "without a NET namespace"),
    (
        {"linux.netDevices": {"eth 0": {}}, "linux.namespaces": spaces("network")},
        "linux.netDevices",
        "invalid network device name 'eth 0'",
    ),
    (
        {"linux.netDevices": {"e": {"name": "x" * 16}}, "linux.namespaces": spaces("network")},
        "linux.netDevices",
        "invalid network device name",
    ),
    ({"mounts": [{"type": "proc"}]}, "mounts[0].destination", "required but missing"),
    ({"mounts": [{"destination": "/a\0"}]}, "mounts[0].destination", "NUL"),
    (
        {"mounts": [{"destination": "/a", "options": ["rbind", "size=1"]}]},
        "mounts[0].options",
        "bind mounts cannot have any filesystem-specific options applied",
    ),
    (
        {"mounts": [{"destination": "/a", "type": "tmpfs", "options": ["idmap"]}]},
        "mounts[0]",
        "id-mapped mounts are only supported for bind-mounts",
    ),
    (
        {"mounts": [{"destination": "/a", "options": ["bind", "idmap"]}]},
        "mounts[0]",
        "id-mapped mounts must have both uid and gid mappings specified",
    ),
    (
        {"mounts": [{"destination": "/a", "options": ["bind"], "uidMappings": MAP}]},
        "mounts[0]",
        "id-mapped mounts must have both uid and gid mappings specified",
    ),
    (
        {"mounts": [{"destination": "/a", "options": ["bind"], "uidMappings": MAP, "gidMappings": [{"size": 0}]}]},
        "mounts[0].gidMappings[0].size",
        "must not be 0",
    ),
    (
        {"linux.sysctl": {"kernel.shmmax": "1"}},
        'linux.sysctl["kernel.shmmax"]',
        "not allowed in the hosts ipc namespace",
    ),
    ({"linux.sysctl": {"fs.mqueue.x": "1"}}, 'linux.sysctl["fs.mqueue.x"]', "hosts ipc namespace"),
    ({"linux.sysctl": {"net/core/x": "1"}}, 'linux.sysctl["net/core/x"]', "not allowed in host network namespace"),
    (
        {"linux.sysctl": {"net.x": "1"}, "linux.namespaces": [{"type": "network", "path": "/proc/self/ns/net"}]},
        'linux.sysctl["net.x"]',
        "not allowed in host network namespace",
    ),
    ({"linux.sysctl": {"user.max": "1"}}, 'linux.sysctl["user.max"]', "without a user namespace not allowed"),
    ({"linux.sysctl": {"vm.swappiness": "1"}}, 'linux.sysctl["vm.swappiness"]', "not in a separate kernel namespace"),
    ({"linux.sysctl": {"kernel.domainname": "x"}}, 'linux.sysctl["kernel.domainname"]', "separate kernel namespace"),
    (
        {"linux.sysctl": {"kernel.hostname": "x"}, "linux.namespaces": spaces("uts")},
        'linux.sysctl["kernel.hostname"]',
        "conflicts with the OCI 'hostname' field",
    ),
    ({"linux.sysctl": {"net.x": 1}}, 'linux.sysctl["net.x"]', "expected a string, got 1"),
    ({"linux.rootfsPropagation": "public"}, "linux.rootfsPropagation", 'unknown value "public"'),
    ({"linux.resources": {"devices": [{"allow": True}]}}, "linux.resources.devices[0].access", "cannot be empty"),
    (
        {"linux.resources": {"devices": [{"access": "rx"}]}},
        "linux.resources.devices[0].access",
        "unknown device access",
    ),
    ({"linux.resources": {"memory": {"limit": "1G"}}}, "linux.resources.memory.limit", 'expected an integer, got "1G"'),
    (
        {"linux.resources": {"hugepageLimits": [{"pageSize": "2mb"}]}},
        "linux.resources.hugepageLimits[0].pageSize",
        "invalid page size '2mb'",
    ),
    ({"linux.intelRdt": {"closID": "a/b"}}, "linux.intelRdt.closID", "invalid intelRdt.ClosID"),
    ({"linux.intelRdt": {"closID": ".."}}, "linux.intelRdt.closID", "invalid intelRdt.ClosID"),
    ({"linux.personality": {}}, "linux.personality.domain", "required but missing"),
    ({"linux.personality": {"domain": "BSD"}}, "linux.personality.domain", 'unknown value "BSD"'),
    ({"linux.memoryPolicy": {}}, "linux.memoryPolicy.mode", "invalid memory policy mode ''"),
    ({"linux.memoryPolicy": {"mode": "BIND"}}, "linux.memoryPolicy.mode", "invalid memory policy mode 'BIND'"),
    (
        {"linux.memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": ["bad"]}},
        "linux.memoryPolicy.flags[0]",
        "invalid memory policy flag 'bad'",
    ),
    (
        {"linux.memoryPolicy": {"mode": "MPOL_DEFAULT", "nodes": "0-7"}},
        "linux.memoryPolicy.nodes",
        "memory policy mode requires 0 nodes but got 8",
    ),
    (
        {"linux.memoryPolicy": {"mode": "MPOL_BIND"}},
        "linux.memoryPolicy.nodes",
        "memory policy mode requires at least one node but got 0",
    ),
    (
        {"linux.memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-9876543210"}},
        "linux.memoryPolicy.nodes",
        "invalid memory policy nodes '0-9876543210'",
    ),
    (
        {"linux.seccomp": {"syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG"}]}},
        "linux.seccomp.defaultAction",
        "required but missing",
    ),
    ({"linux.seccomp": {"defaultAction": "SCMP_ACT_NOTIFY"}}, "linux.seccomp.defaultAction", "as default action"),
    (
        {
            "linux.seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}],
            }
        },
        "linux.seccomp.syscalls[0].action",
        "SCMP_ACT_NOTIFY cannot be used for the write syscall",
    ),
    (
        {
            "linux.seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": [""], "action": "SCMP_ACT_LOG"}],
            }
        },
        "linux.seccomp.syscalls[0].names",
        "empty string",
    ),
    ({"linux.seccomp": {"defaultAction": "ALLOW"}}, "linux.seccomp.defaultAction", "unknown value"),
    (
        {"linux.seccomp": {"defaultAction": "SCMP_ACT_LOG", "flags": ["X"]}},
        "linux.seccomp.flags[0]",
        "unknown value",
    ),
    ({"hooks": {"poststop": [{"path": ""}]}}, "hooks.poststop[0].path", "must not be empty"),
    ({"hooks": {"prestart": [{"path": "/a", "timeout": 0}]}}, "hooks.prestart[0].timeout", "out of range"),
    ({"annotations": {"a.b": 1}}, 'annotations["a.b"]', "expected a string, got 1"),
]


@pytest.mark.parametrize(
    ("changes", "path", "words"), REFUSED, ids=lambda value: value if isinstance(value, str) else ""
)
def test_refused(changes: dict[str, object], path: str, words: str) -> None:
    """A broken rule is told with the JSON path of the value and in the words that clients know."""
    with pytest.raises(SpecError) as caught:
        validate(changed(MINIMAL, changes))
    assert caught.value.path == path
    assert words in str(caught.value)
    assert str(caught.value).startswith(f"invalid configuration: {path}: ")


ACCEPTED: list[dict[str, object]] = [
    {"ociVersion": "1.0.0-rc5"},
    {"ociVersion": "1.0.2-dev"},
    {"ociVersion": "1.9.7"},
    {"x-unknown": {"process": 3}, "linux.x": [1], "process.x": None},
    {"linux.timeOffsets": {"boottime": {"secs": 1}}, "linux.namespaces": spaces("time")},
    {"linux.namespaces": [{"type": "user", "path": "/proc/1/ns/user"}]},
    {"linux.namespaces": spaces("user"), "linux.uidMappings": MAP, "linux.gidMappings": MAP},
    {
        "linux.namespaces": spaces("user"),
        "linux.uidMappings": MAP,
        "linux.gidMappings": MAP,
        "mounts": [{"destination": "/a", "options": ["bind", "ridmap"]}],
    },
    {"mounts": [{"destination": "/a", "type": "none", "options": ["rbind", "defaults", "rro", "rslave"]}]},
    {"mounts": [{"destination": "/a", "type": "tmpfs", "options": ["size=1", "tmpcopyup"]}]},
    {"linux.sysctl": {"kernel.domainname": "x"}, "linux.namespaces": spaces("uts")},
    {"linux.sysctl": {"net/ipv4/conf/eth0.1/rp_filter": "1"}, "linux.namespaces": spaces("network")},
    {"linux.sysctl": {"kernel.sem": "1", "fs/mqueue/msg_max": "1"}, "linux.namespaces": spaces("ipc")},
    {"linux.rootfsPropagation": "rslave"},
    {"linux.seccomp": {}},
    {"linux.memoryPolicy": {"mode": "MPOL_DEFAULT"}},
    {"linux.memoryPolicy": {"mode": "MPOL_PREFERRED"}},
    {"linux.devices": [{"type": "u", "path": "/dev/x", "fileMode": 0o20666}]},
    {"linux.resources": {"pids": {}, "devices": [{"access": "rwm"}]}},
    {"process.scheduler": {"policy": "SCHED_DEADLINE", "nice": 19, "runtime": 1, "deadline": 2, "period": 2}},
    {"linux.namespaces": [{"type": "user", "path": "/x"}], "linux.uidMappings": MAP},
    {"linux": None, "mounts": None, "hooks": None, "process.env": None, "process.capabilities": None},
    {"hooks": {"unknown": [{"path": ""}]}},
    {"linux.netDevices": {}},
]


@pytest.mark.parametrize("changes", ACCEPTED, ids=lambda changes: next(iter(changes)))
def test_accepted(changes: dict[str, object]) -> None:
    """What runc takes is taken, without a word."""
    warnings: list[str] = []
    validate(changed(MINIMAL, changes), warnings)
    assert warnings == []


WARNED: list[tuple[dict[str, object], str]] = [
    ({"mounts": [{"destination": "data"}]}, "mounts[0].destination"),
    ({"linux.personality": {"domain": "LINUX", "flags": ["X"]}}, "linux.personality.flags"),
    ({"linux.resources": {"memory": {"kernel": 1}}}, "linux.resources.memory.kernel"),
    ({"hooks": {"prestart": [{"path": "hook"}]}}, "hooks.prestart[0].path"),
]


@pytest.mark.parametrize(("changes", "words"), WARNED, ids=[words for _, words in WARNED])
def test_warned(changes: dict[str, object], words: str) -> None:
    """What is odd but works is accepted with exactly one warning."""
    warnings: list[str] = []
    validate(changed(MINIMAL, changes), warnings)
    assert [words in warning for warning in warnings] == [True]


def test_rootless_needs_a_user_namespace_and_no_privilege() -> None:
    """The narrower rules hold for a caller without privilege, and for that caller alone."""
    mapped = {"linux.namespaces": spaces("user", "network"), "linux.uidMappings": MAP, "linux.gidMappings": MAP}
    refused: list[dict[str, object]] = [
        {},
        mapped | {"linux.netDevices": {"eth0": {}}},
        mapped | {"mounts": [{"destination": "/a", "options": ["bind", "idmap"]}]},
    ]
    for changes in refused:
        validate(changed(MINIMAL, changes))
        with pytest.raises(SpecError, match="rootless"):
            validate(changed(MINIMAL, changes), rootless=True)
    validate(changed(MINIMAL, mapped), rootless=True)


def test_namespaces_to_be_added_count() -> None:
    """Settings that need a namespace which the conversion adds are not refused."""
    added = ("user", "cgroup", "time")
    needing: list[dict[str, object]] = [
        {"linux.uidMappings": MAP, "linux.gidMappings": MAP},
        {"linux.namespaces": spaces("user")},
        {"linux.timeOffsets": {"monotonic": {"secs": 5}}},
        {"linux.sysctl": {"user.max_user_namespaces": "10"}},
        {"mounts": [{"destination": "/a", "options": ["bind", "idmap"]}]},
    ]
    for changes in needing:
        with pytest.raises(SpecError):
            validate(changed(MINIMAL, changes))
        validate(changed(MINIMAL, changes), added=added)
    with pytest.raises(SpecError, match="no mapping found for uid 0"):
        validate(changed(MINIMAL, {"linux.uidMappings": [{"containerID": 5, "size": 1}]}), added=added)


def test_value_is_never_changed() -> None:
    """The argument stays as it was, whether a completed copy is returned or the value itself."""
    incomplete = changed(MINIMAL, {"linux": None, "process.rlimits": [{"type": "RLIMIT_CPU"}], "hostname": None})
    before = copy.deepcopy(incomplete)
    spec = validate(incomplete)
    assert incomplete == before
    assert "linux" not in spec
    assert "hostname" not in spec
    assert spec["process"]["user"] == {"uid": 0, "gid": 0}
    assert spec["process"]["rlimits"] == [{"type": "RLIMIT_CPU", "hard": 0, "soft": 0}]
    assert validate(FULL) is FULL


def test_filled_objects_are_not_shared() -> None:
    """A filled-in user belongs to one configuration: changing it does not change the next."""
    first, second = (validate(changed(MINIMAL, {"process.user": DELETED})) for _ in range(2))
    first["process"]["user"]["uid"] = 7
    assert second["process"]["user"] == {"uid": 0, "gid": 0}


@pytest.mark.parametrize("value", [None, [], "x", 3, {}])
def test_what_is_no_configuration_is_refused(value: object) -> None:
    """Any JSON value may be handed in."""
    for check in (validate, validate_process):
        with pytest.raises(SpecError):
            check(value)


def test_process_alone_and_resources_alone() -> None:
    """The files of `exec --process` and `update -r` are judged by the same rules, with paths of their own."""
    assert validate_process({"cwd": "/", "args": ["x"]})["user"] == {"uid": 0, "gid": 0}
    with pytest.raises(SpecError) as caught:
        validate_process({"cwd": "/", "args": ["x"], "rlimits": [{"type": "X"}]})
    assert caught.value.path == "process.rlimits[0].type"
    assert validate_resources({"memory": {"limit": 1}}) == {"memory": {"limit": 1}}
    wrongs: list[object] = [{"memory": {"limit": 1.5}}, {"devices": [{"access": ""}]}, []]
    for wrong in wrongs:
        with pytest.raises(SpecError, match=r"resources"):
            validate_resources(wrong)


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="SELinux is on; run on a host without it")
def test_selinux_label_without_selinux() -> None:
    """A label cannot be kept where there is no SELinux."""
    with pytest.raises(SpecError, match="selinux is disabled or not supported"):
        validate(changed(MINIMAL, {"process.selinuxLabel": "system_u"}))


@pytest.mark.parametrize(
    ("text", "ranges"),
    [("", []), ("0", [(0, 0)]), (" 0-3 ,, 5,", [(0, 3), (5, 5)]), ("007", [(7, 7)]), ("65536", [(65536, 65536)])],
)
def test_id_lists(text: str, ranges: list[tuple[int, int]]) -> None:
    """Lists of CPUs and nodes are read as the kernel writes them."""
    assert parse_ids(text) == ranges


@pytest.mark.parametrize("text", ["a", "-1", "1-", "3-1", "65537", "1_0", "+1", "٣", ",", "9" * 5000, "1-2-3"])
def test_bad_id_lists(text: str) -> None:
    """Anything else is refused, whatever int() would make of it."""
    with pytest.raises(ValueError, match=r"not|larger|range|members"):
        parse_ids(text)


def test_a_page_size_in_lower_case_is_taken() -> None:
    """As runc does, which reads names in any case; what was given is not changed."""
    given = {"hugepageLimits": [{"pagesize": "2MB", "limit": 1}, {"pageSize": "1GB", "limit": 2}]}
    limits = validate_resources(given)["hugepageLimits"]
    assert [limit["pageSize"] for limit in limits] == ["2MB", "1GB"]
    assert "pagesize" in given["hugepageLimits"][0]
