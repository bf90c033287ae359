"""Intel RDT on a directory tree that stands for resctrl: which files are made, written, compared and removed.

Few machines have the hardware. What the kernel does by itself there, filling a new group with files and
emptying it when it is removed, is done by the tests.
"""

import pathlib
import shutil

import pytest

from sysvisor_runc.errors import LaunchError, SpecError
from sysvisor_runc.jsonlight import dumps
from sysvisor_runc.launch.rdt import apply_rdt, join_rdt, remove_rdt
from sysvisor_runc.launch.rdt_usage import rdt_usage
from sysvisor_runc.launch.undo import UndoStack
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import IntelRdt

FULL = "L3:0=fffff;1=fffff\nMB:0=100;1=100\n"


class Resctrl:
    """A mounted resctrl with its root group. `noted` is what a launch was told before it was made."""

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self.noted: list[str] = []
        self.undo = UndoStack()
        (root / "info").mkdir()
        self.group("", FULL)

    def group(self, name: str, schemata: str = FULL) -> pathlib.Path:
        """A group that somebody has made before."""
        path = self.root / name
        path.mkdir(exist_ok=True)
        (path / "mon_groups").mkdir()
        (path / "schemata").write_text(schemata)
        (path / "tasks").touch()
        return path

    def apply(self, wanted: "IntelRdt", container: str = "box") -> str:
        return apply_rdt(wanted, container, self.undo, self.noted.append, root=str(self.root))

    def join(self, wanted: "IntelRdt", pid: int, container: str = "box") -> None:
        join_rdt(wanted, container, pid, root=str(self.root))

    def empty(self, *names: str) -> None:
        """What the kernel does when a group is removed: its files are no obstacle."""
        for name in names:
            for path in (self.root / name).iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.fixture
def resctrl(tmp_path: pathlib.Path) -> Resctrl:
    return Resctrl(tmp_path)


def test_a_group_of_its_own(resctrl: Resctrl) -> None:
    """Named after the container, with both schemas in one write, joined by pid, removed in the end."""
    wanted: IntelRdt = {"l3CacheSchema": "L3:0=f;1=f0", "memBwSchema": "MB:0=20;1=70"}
    made = resctrl.apply(wanted)
    assert made == str(resctrl.root / "box") == resctrl.noted[0]
    assert (resctrl.root / "box/schemata").read_text() == "L3:0=f;1=f0\nMB:0=20;1=70\n"
    resctrl.join(wanted, 4321)
    assert (resctrl.root / "box/tasks").read_text() == "4321"
    resctrl.empty("box")
    remove_rdt(made)
    assert not (resctrl.root / "box").exists()
    remove_rdt(made)


def test_a_launch_that_fails_removes_it(resctrl: Resctrl) -> None:
    """By the undo stack."""
    resctrl.apply({"closID": "", "enableMonitoring": False})
    resctrl.undo.unwind()
    assert not (resctrl.root / "box").exists()


def test_schemata_come_last(resctrl: Resctrl) -> None:
    """After both other schemas, line by line."""
    resctrl.apply({"schemata": ["L2:0=3", "MB:0=50"], "l3CacheSchema": "L3:0=f"})
    assert (resctrl.root / "box/schemata").read_text() == "L3:0=f\nL2:0=3\nMB:0=50\n"


def test_a_bandwidth_line_among_the_cache_lines(resctrl: Resctrl) -> None:
    """memBwSchema wins over it; alone it stays."""
    resctrl.apply({"l3CacheSchema": "L3:0=f\nMB:0=10", "memBwSchema": "MB:0=20"})
    assert (resctrl.root / "box/schemata").read_text() == "L3:0=f\nMB:0=20\n"
    resctrl.apply({"l3CacheSchema": "L3:0=f\nMB:0=10"}, "other")
    assert (resctrl.root / "other/schemata").read_text() == "L3:0=f\nMB:0=10\n"


def test_without_any_schema_nothing_is_written(resctrl: Resctrl) -> None:
    """The group exists, as the kernel made it."""
    resctrl.apply({})
    assert list((resctrl.root / "box").iterdir()) == []


def test_an_existing_class(resctrl: Resctrl) -> None:
    """Used as it is, and neither recorded nor removed."""
    resctrl.group("guaranteed")
    assert resctrl.apply({"closID": "guaranteed"}) == ""
    resctrl.join({"closID": "guaranteed"}, 99)
    assert (resctrl.root / "guaranteed/tasks").read_text() == "99"
    assert (resctrl.root / "guaranteed/schemata").read_text() == FULL
    resctrl.undo.unwind()
    assert (resctrl.root / "guaranteed").exists()


def test_an_existing_class_must_agree(resctrl: Resctrl) -> None:
    """Whatever the spelling: zeros, blanks and order are the kernel's. What is in schemata is written to it."""
    path = resctrl.group("class", "    L3:1=000f0;0=0000f\n    MB:0= 20;1= 70\n")
    resctrl.apply({"closID": "class", "l3CacheSchema": "L3:0=f;1=f0", "memBwSchema": "MB:1=70;0=20"})
    with pytest.raises(LaunchError, match="its L3 of domain 1 differs"):
        resctrl.apply({"closID": "class", "l3CacheSchema": "L3:0=f;1=ff"})
    with pytest.raises(LaunchError, match="its MB of domain 7 differs"):
        resctrl.apply({"closID": "class", "memBwSchema": "MB:7=70"})
    with pytest.raises(SpecError, match="cannot read the schema"):
        resctrl.apply({"closID": "class", "l3CacheSchema": "L3:nonsense"})
    resctrl.apply({"closID": "class", "schemata": ["MB:0=30"]})
    assert (path / "schemata").read_text().startswith("MB:0=30\n")


def test_a_class_that_must_be_there(resctrl: Resctrl) -> None:
    """Named without any schema it is somebody else's to make."""
    with pytest.raises(LaunchError, match="no resctrl group"):
        resctrl.apply({"closID": "absent"})
    assert not (resctrl.root / "absent").exists()


def test_a_class_made_here_outlives_others_in_it(resctrl: Resctrl) -> None:
    """The container that made it goes; tasks of another that shares it keep it."""
    made = resctrl.apply({"closID": "shared", "schemata": ["L3:0=f"]})
    (resctrl.root / "shared/tasks").write_text("77\n")
    remove_rdt(made)
    assert (resctrl.root / "shared").exists()
    resctrl.empty("shared")
    remove_rdt(made)
    assert not (resctrl.root / "shared").exists()


def test_the_root_class(resctrl: Resctrl) -> None:
    """`/` is resctrl itself."""
    assert resctrl.apply({"closID": "/"}) == ""
    resctrl.join({"closID": "/"}, 5)
    assert (resctrl.root / "tasks").read_text() == "5"


def test_monitoring(resctrl: Resctrl) -> None:
    """A monitoring group of the container's own in its class, joined as well and always removed."""
    resctrl.group("class")
    wanted: IntelRdt = {"closID": "class", "enableMonitoring": True}
    made = resctrl.apply(wanted)
    assert made == str(resctrl.root / "class/mon_groups/box") == resctrl.noted[0]
    resctrl.join(wanted, 31)
    assert (resctrl.root / "class/mon_groups/box/tasks").read_text() == "31"
    resctrl.empty("class/mon_groups/box")
    remove_rdt(made)
    assert not (resctrl.root / "class/mon_groups/box").exists()
    assert (resctrl.root / "class").exists()


def test_the_kernels_own_words(resctrl: Resctrl, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says about a refusal stands in info/last_cmd_status and in our error."""
    (resctrl.root / "info/last_cmd_status").write_text("Non-consecutive 1-bits in mask\n")
    (resctrl.root / "box").mkdir()
    (resctrl.root / "box/schemata").mkdir()  # a write to it fails
    with pytest.raises(LaunchError, match=r"is a directory \(Non-consecutive 1-bits in mask\)"):
        resctrl.apply({"schemata": ["L3:0=5"]})


@pytest.mark.root
def test_without_the_hardware(plain_runtime: Runtime, bundle: Bundle) -> None:
    """The error says that there is none, and nothing is left."""
    if " - resctrl " in pathlib.Path("/proc/self/mountinfo").read_text():
        pytest.skip("this machine has resctrl mounted; to force it: umount it")
    bundle.linux["intelRdt"] = {"l3CacheSchema": "L3:0=f"}
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "intelRdt is specified in config, but Intel RDT is not supported or enabled" in error


def test_usage_as_runc_prints_it(resctrl: Resctrl) -> None:
    """Schemas, what the processor offers, and what was measured in the container's own monitoring group."""
    info = {
        "L3": {"cbm_mask": "fffff", "min_cbm_bits": "1", "num_closids": "4"},
        "MB": {"bandwidth_gran": "10", "delay_linear": "1", "min_bandwidth": "10", "num_closids": "8"},
        "L3_MON": {"mon_features": "llc_occupancy\nmbm_total_bytes\n"},
    }
    for name, files in info.items():
        (resctrl.root / "info" / name).mkdir()
        for file, text in files.items():
            (resctrl.root / "info" / name / file).write_text(text + "\n")
    group = resctrl.group("box", "    L3:0=f;1=f0\n    MB:0=20;1=70\n")
    domain = group / "mon_groups/box/mon_data/mon_L3_00"
    domain.mkdir(parents=True)
    (domain / "llc_occupancy").write_text("65536\n")
    (domain / "mbm_total_bytes").write_text("Unavailable\n")
    assert dumps(rdt_usage({"enableMonitoring": True}, "box", root=str(resctrl.root))) == (
        '{"l3_cache_info":{"cbm_mask":"fffff","min_cbm_bits":1,"num_closids":4},'
        '"l3_cache_schema_root":"L3:0=fffff;1=fffff","l3_cache_schema":"L3:0=f;1=f0",'
        '"mem_bw_info":{"bandwidth_gran":10,"delay_linear":1,"min_bandwidth":10,"num_closids":8},'
        '"mem_bw_schema_root":"MB:0=100;1=100","mem_bw_schema":"MB:0=20;1=70",'
        '"schemata":["L3:0=f;1=f0","MB:0=20;1=70"],'
        '"mbm_stats":[{"mbm_total_bytes":0,"mbm_local_bytes":0}],"cmt_stats":[{"llc_occupancy":65536}]}'
    )


def test_no_usage_without_the_groups(resctrl: Resctrl) -> None:
    """A group that is gone, and a processor that offers nothing, leave nothing to tell."""
    assert rdt_usage({}, "gone", root=str(resctrl.root)) == {}
