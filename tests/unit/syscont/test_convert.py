"""The conversion as a whole: what every system container gets, and that the input stays as it was."""

import copy
import marshal
import pathlib
import subprocess
import sys

import pytest

from sysvisor_runc.spec.template import default_spec
from sysvisor_runc.spec.types import Spec
from sysvisor_runc.syscont.convert import convert, convert_exec
from sysvisor_runc.syscont.facts import PathFacts
from tests.unit.syscont import sample
from tools.slim import compile_slim

INPUTS = {
    "minimal": sample.spec(),
    "systemd": sample.spec("/sbin/init", root={"path": "rootfs", "readonly": True}),
    "template": default_spec(),
    "conforming": default_spec(conforming=True),
    "rich": sample.spec(
        mounts=[sample.bind("/srv", "/srv"), sample.tmpfs("/dev", "size=1m"), sample.tmpfs("/run")],
        process={"rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1 << 20, "soft": 1 << 20}], "apparmorProfile": "x"},
        linux={
            "sysctl": {"net.ipv4.ping_group_range": "0 2147483647"},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"}],
            },
            "devices": [{"type": "c", "path": "/dev/kmsg", "major": 1, "minor": 11}],
        },
    ),
}


@pytest.mark.parametrize("name", INPUTS)
def test_the_input_is_not_changed(name: str) -> None:
    """Every step copies what it writes to, whatever the spec holds."""
    given, before = INPUTS[name], copy.deepcopy(INPUTS[name])
    facts = sample.facts(
        args0="/lib/systemd/systemd",
        sources={"/srv": PathFacts(sample.EXT4)},
        fs_mountpoint="/var/lib/sysvisorfs",
        capabilities=0,
        rlimits={"RLIMIT_NOFILE": (1024, 4096)},
        credentials={"a": b"b"},
    )
    convert(given, facts)
    assert given == before


def test_tables_survive_their_users() -> None:
    """Whoever changes a converted spec changes no later container."""
    first, _ = convert(sample.spec(), sample.facts())
    for mount in first["mounts"]:
        mount["options"].append("spoiled")
    second, _ = convert(sample.spec(), sample.facts())
    assert not any("spoiled" in mount["options"] for mount in second["mounts"])


@pytest.mark.parametrize("name", INPUTS)
def test_a_converted_spec_is_still_valid(name: str) -> None:
    """What comes out passes the validation that what goes in has passed."""
    from sysvisor_runc.spec.validate import validate

    converted, _ = convert(INPUTS[name], sample.facts(args0="/lib/systemd/systemd"))
    validate(converted)


def test_converting_twice_changes_nothing_more() -> None:
    """A spec that is a system container's already stays as it is."""
    once, _ = convert(sample.spec("/sbin/init"), sample.facts(args0="/lib/systemd/systemd"))
    once["mounts"] = [mount for mount in once["mounts"] if "/dev/.sysvisor" not in mount["destination"]]
    twice, _ = convert(once, sample.facts(args0="/lib/systemd/systemd"))
    assert [mount for mount in twice["mounts"] if "/dev/.sysvisor" not in mount["destination"]] == once["mounts"]
    assert twice["process"] == once["process"]


def test_exec_gets_the_same_rights() -> None:
    """A later root process holds all capabilities and no AppArmor profile, as init does."""
    container, _ = convert(sample.spec(), sample.facts())
    process = sample.spec("id", process={"apparmorProfile": "docker-default"})["process"]
    converted, warnings = convert_exec(process, container, sample.facts())
    assert converted["capabilities"] == container["process"]["capabilities"]
    assert "apparmorProfile" not in converted
    assert warnings == []


def test_exec_may_ask_for_its_own_capabilities() -> None:
    """SYSVISOR_HONOR_CAPS in the environment of one process concerns that process."""
    container: Spec = sample.spec()
    process = sample.spec("id", process={"env": ["SYSVISOR_HONOR_CAPS=TRUE"], "capabilities": {}})["process"]
    assert convert_exec(process, container, sample.facts())[0]["capabilities"] == {}


def test_nothing_heavy_is_loaded() -> None:
    """An ordinary conversion stays within its bytecode budget and loads only this package and errors."""
    root = pathlib.Path(__file__).parents[3]
    script = (
        "import sys, os; before = set(sys.modules); sys.path.insert(0, sys.argv[1])\n"
        "import sysvisor_runc.syscont.convert as convert\n"
        "from sysvisor_runc.syscont.facts import HostFacts, PathFacts\n"
        "facts = HostFacts('a', '/r', PathFacts(0xEF53), kernel=(6, 1), capabilities=0, cap_names=(),"
        " id_range=(1, 1, 65536))\n"
        "kinds = [{'type': kind} for kind in ('pid', 'ipc', 'uts', 'mount', 'network')]\n"
        "convert.convert({'root': {'path': 'r'}, 'process': {'args': ['sh'], 'user': {'uid': 0}},"
        " 'linux': {'namespaces': kinds}}, facts)\n"
        "new = set(sys.modules) - before\n"
        "print(*(sys.modules[name].__file__ for name in new if 'syscont' in name), sep='\\0')\n"
        "print(*sorted(name for name in new if not name.startswith('sysvisor_runc.syscont')))\n"
    )
    done = subprocess.run([sys.executable, "-SI", "-c", script, str(root)], capture_output=True, text=True, check=True)
    files, loaded = done.stdout.splitlines()
    assert set(loaded.split()) <= {"__future__", "sysvisor_runc", "sysvisor_runc.errors"}
    # As installed: the same on every machine, whatever the checkout's path, which Python's own caches hold.
    paths = [pathlib.Path(file) for file in files.split("\0")]
    assert sum(len(marshal.dumps(compile_slim(path.read_bytes(), path.stem))) for path in paths) <= 38_000
