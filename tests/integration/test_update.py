"""`update`: limits change as asked, all or none, in the kernel and in the record."""

import json
import pathlib
import subprocess

import pytest

from sysvisor_runc.cli.update import old_value
from tests.support.handmade import Handmade, container
from tests.support.runtime import Runtime

LIMITS: dict[str, object] = {
    "linux": {
        "namespaces": [{"type": "pid"}],
        "resources": {
            "memory": {"limit": 33554432, "reservation": 25165824},
            "cpu": {"shares": 100, "quota": 500000, "period": 1000000},
            "pids": {"limit": 20},
        },
    }
}


def value(one: Handmade, v1: str, v2: str) -> str:
    """What a control file of the container reads, by its name under each cgroup version."""
    path = one.manager.paths["unified"] if one.manager.v2 else one.manager.paths[v1.partition(".")[0]]
    return pathlib.Path(path, v2 if one.manager.v2 else v1).read_text().strip()


def memory(one: Handmade) -> str:
    return value(one, "memory.limit_in_bytes", "memory.max")


def pids(one: Handmade) -> str:
    return value(one, "pids.max", "pids.max")


def quota(one: Handmade) -> tuple[str, str]:
    """CPU quota and period."""
    if one.manager.v2:
        maximum, period = value(one, "", "cpu.max").split()
        return ("-1" if maximum == "max" else maximum), period
    return value(one, "cpu.cfs_quota_us", ""), value(one, "cpu.cfs_period_us", "")


def stored(one: Handmade) -> dict[str, dict[str, object]]:
    """The limits in the record."""
    return one.entry.load()["spec"]["linux"]["resources"]  # type: ignore[return-value]


def test_each_flag_changes_its_limit(runtime: Runtime) -> None:
    """One after the other, with the suffixes for sizes, and lifted again."""
    with container(runtime, LIMITS) as one:
        runtime("update", "--memory", "67108864", one.id)
        assert memory(one) == "67108864"
        runtime("update", one.id, "--memory", "50M")
        assert memory(one) == "52428800"
        runtime("update", "--pids-limit", "10", one.id)
        assert pids(one) == "10"
        runtime("update", "--pids-limit=-1", one.id)
        assert pids(one) == "max"
        runtime("update", "--pids-limit", "0", one.id)
        assert pids(one) == "1"
        runtime("update", "--cpuset-cpus", "0", one.id)
        assert value(one, "cpuset.cpus", "cpuset.cpus") == "0"
        runtime("update", "--memory", "-1", one.id)
        assert memory(one) in ("max", "9223372036854771712")


def test_quota_and_period_are_a_pair(runtime: Runtime) -> None:
    """Either may be changed alone; the other keeps the value of config.json or of the last update."""
    with container(runtime, LIMITS) as one:
        runtime("update", "--cpu-period", "900000", one.id)
        assert quota(one) == ("500000", "900000")
        runtime("update", "--cpu-quota", "600000", one.id)
        assert quota(one) == ("600000", "900000")
        runtime("update", "--cpu-quota", "-1", one.id)
        assert quota(one) == ("-1", "900000")
        runtime("update", "--cpu-quota", "-1", "--cpu-period", "100000", one.id)
        assert quota(one) == ("-1", "100000")


@pytest.mark.parametrize("source", ["file", "-"])
def test_limits_from_json(runtime: Runtime, tmp_path: pathlib.Path, source: str) -> None:
    """From a file or standard input; then flags for single values are ignored."""
    text = json.dumps({"memory": {"limit": 41943040}, "pids": {"limit": 7}, "cpu": {"shares": 200}})
    file = tmp_path / "limits.json"
    file.write_text(text)
    with container(runtime, LIMITS) as one, open(file) as stdin:
        runtime("update", "-r", str(file) if source == "file" else "-", "--pids-limit", "99", one.id, stdin=stdin)
        assert (memory(one), pids(one)) == ("41943040", "7")
        assert stored(one)["cpu"] == {"shares": 200, "quota": 500000, "period": 1000000}


def test_the_record_knows_the_new_limits(runtime: Runtime) -> None:
    """So that the next update, and a restart, go on from them."""
    with container(runtime, LIMITS) as one:
        runtime("update", "--pids-limit", "9", "--memory", "64M", one.id)
        assert stored(one)["pids"] == {"limit": 9}
        assert stored(one)["memory"]["limit"] == 64 << 20
        assert stored(one)["memory"]["reservation"] == 25165824


def test_a_refused_update_changes_nothing(runtime: Runtime) -> None:
    """What was already written is set back, whether the record knew its value or not."""
    with container(runtime) as one:
        runtime("update", "--pids-limit", "33", one.id)
        for path, file in ((one.manager.paths.get("memory"), "memory.limit_in_bytes"),):
            if path:
                pathlib.Path(path, file).write_text("104857600")
        before = (pids(one), memory(one), quota(one), stored(one))
        flags = ["--pids-limit", "44", "--memory", "64M", "--cpu-period", "50000", "--blkio-weight", "1000"]
        refused = [*flags, "--cpu-quota", "1"]  # the kernel wants 1000 at least
        assert "cfs_quota_us" in (told := runtime.fails("update", *refused, one.id).stderr) or "cpu.max" in told
        assert (pids(one), memory(one), quota(one), stored(one)) == before


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--memory", "x"], "invalid value for memory"),
        (["--memory", "1..5M"], "invalid value for memory"),
        (["--cpu-quota", "1.5"], "invalid value for cpu-quota"),
        (["--cpu-period", "-1"], "cpu.period"),
        (["--cpu-idle", "maybe"], "invalid value for cpu-idle"),
        (["--blkio-weight", "70000"], "blockIO.weight"),
        (["--pids-limit", "many"], "pids-limit"),
        (["-r", "/nonexistent"], "/nonexistent not found"),
        (["--l3-cache-schema", "L3:0=f"], "l3 cache schema is not enabled"),
    ],
)
def test_bad_values_are_told(runtime: Runtime, flags: list[str], words: str) -> None:
    """With the flag or the field, and nothing is changed."""
    with container(runtime, LIMITS) as one:
        before = one.entry.load()
        assert words in runtime.fails("update", "--pids-limit", "5", *flags, one.id).stderr
        assert one.entry.load() == before
        assert pids(one) == "max"


def test_bad_json_is_told(runtime: Runtime, tmp_path: pathlib.Path) -> None:
    """With the line, or with the path of the field."""
    file = tmp_path / "limits.json"
    with container(runtime, LIMITS) as one:
        for text, words in (("{", "not valid JSON"), ("[]", "object"), ('{"pids": {"limit": "x"}}', "pids.limit")):
            file.write_text(text)
            assert words in runtime.fails("update", "-r", file, one.id).stderr


def test_kernel_memory_is_ignored_with_a_warning(runtime: Runtime) -> None:
    """The kernel has had no such limit since 5.4."""
    with container(runtime, LIMITS) as one:
        result = runtime("update", "--kernel-memory", "16M", one.id)
        assert "kernel memory settings are ignored" in result.stderr
        assert "kernel" not in stored(one)["memory"]


def test_a_stopped_container_cannot_be_updated(runtime: Runtime) -> None:
    """In runc's words."""
    with container(runtime, LIMITS) as one:
        one.end_init()
        assert "container not running" in runtime.fails("update", "--pids-limit", "5", one.id).stderr


def test_a_paused_container_stays_paused(runtime: Runtime) -> None:
    """It is updated without being let run."""
    with container(runtime, LIMITS) as one:
        runtime("pause", one.id)
        runtime("update", "--pids-limit", "30", one.id)
        assert (runtime.state(one.id)["status"], pids(one)) == ("paused", "30")
        runtime("resume", one.id)


def test_concurrent_updates_lose_nothing(runtime: Runtime) -> None:
    """Ten at once, each of another limit or value: the record has one of each."""
    with container(runtime, LIMITS) as one:
        running = [
            runtime.start_background("update", *flags, one.id)
            for number in range(5)
            for flags in (["--pids-limit", str(100 + number)], ["--cpu-share", str(200 + number)])
        ]
        assert [each.wait().returncode for each in running] == [0] * 10
        assert stored(one)["pids"]["limit"] == int(pids(one))
        assert stored(one)["cpu"]["shares"] in range(200, 205)


def test_a_throttle_is_updated(runtime: Runtime) -> None:
    """For a device of this machine."""
    listed = subprocess.run(["lsblk", "-dno", "MAJ:MIN"], capture_output=True, text=True).stdout.split()
    if not listed:
        pytest.skip("no block device here; to force it: make test-vm")
    major, minor = map(int, listed[0].split(":"))
    change = {"blockIO": {"throttleReadBpsDevice": [{"major": major, "minor": minor, "rate": 1 << 20}]}}
    with container(runtime, LIMITS) as one:
        file = runtime.directory / "limits.json"
        file.write_text(json.dumps(change))
        runtime("update", "-r", file, one.id)
        if not one.manager.v2:
            path = pathlib.Path(one.manager.paths["blkio"], "blkio.throttle.read_bps_device")
            assert path.read_text().strip() == f"{major}:{minor} {1 << 20}"


@pytest.mark.parametrize(
    ("text", "new", "v2", "old"),
    [
        ("20\n", "30", False, "20"),
        ("max 100000\n", "5 6", True, "max 100000"),
        ("", "0-1", True, "\n"),
        ("8:0 5\n8:16 7\n", "8:16 9", False, "8:16 7"),
        ("8:0 5\n", "8:16 9", False, "8:16 0"),
        ("default 100\n", "8:16 9", True, "8:16 default"),
        ("8:0 rbps=1 wbps=max\n", "8:0 wbps=2", True, "8:0 rbps=1 wbps=max"),
        ("", "8:0 rbps=1", True, "8:0 rbps=max"),
        ("a 1\nb 2\n", "1", False, None),
    ],
)
def test_what_sets_a_control_file_back(text: str, new: str, v2: bool, old: str | None) -> None:
    """The line that was there, or that lifts a limit which was not."""
    assert old_value(text, new, v2=v2) == old
