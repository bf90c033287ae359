"""The devices of a machine."""

from sysvisor_runc.syscont.devices import convert_devices
from tests.unit.syscont import sample

FUSE = {"/dev/fuse": (10, 229)}


def test_fuse_is_there() -> None:
    """What the host has of them is made and allowed, beside the spec's own rules."""
    rule = {"allow": False, "access": "rwm"}
    spec = sample.spec(linux={"resources": {"devices": [rule]}})
    linux = convert_devices(spec, sample.facts(machine_devices=FUSE), sample.traits())["linux"]
    assert [device["path"] for device in linux["devices"]] == ["/dev/fuse"]
    assert linux["devices"][0]["fileMode"] == 0o666
    assert linux["resources"]["devices"] == [
        rule,
        {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rwm"},
    ]


def test_absent_on_the_host() -> None:
    """A host without FUSE has none to give."""
    linux = convert_devices(sample.spec(), sample.facts(), sample.traits())["linux"]
    assert linux["devices"] == [] and "devices" not in linux["resources"]


def test_the_specs_own_wins() -> None:
    """A device that the spec describes stays as it is."""
    own = {"path": "/dev//fuse", "type": "c", "major": 1, "minor": 3}
    spec = sample.spec(linux={"devices": [own]})
    linux = convert_devices(spec, sample.facts(machine_devices=FUSE), sample.traits())["linux"]
    assert linux["devices"] == [own] and "devices" not in linux["resources"]


def test_who_makes_them() -> None:
    """Real nodes are for callers whom the kernel lets make them."""
    traits = sample.traits()
    convert_devices(sample.spec(), sample.facts(may_mknod=True), traits)
    assert traits.host_nodes
    convert_devices(sample.spec(), sample.facts(), traits)
    assert not traits.host_nodes


def test_not_all_of_the_hosts() -> None:
    """What --privileged asks for, all devices and their nodes, is cut down to those that have a rule of their own."""
    disk = {"path": "/dev/sda", "type": "b", "major": 8, "minor": 0}
    fuse = {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600}
    tape = {"path": "/dev/st0", "type": "c", "major": 9, "minor": 0}
    own = {"allow": True, "type": "c", "major": 9, "minor": 0, "access": "rw"}
    everything = {"allow": True, "access": "rwm"}
    nothing = {"allow": False, "access": "rwm"}
    for rules in ([everything, own], [nothing, everything, own], [{**everything, "type": "a"}, own]):
        traits = sample.traits()
        spec = sample.spec(linux={"devices": [disk, tape, fuse], "resources": {"devices": rules}})
        linux = convert_devices(spec, sample.facts(), traits)["linux"]
        assert linux["devices"] == [tape]
        assert linux["resources"]["devices"] == [nothing, own]
        both = convert_devices(spec, sample.facts(machine_devices=FUSE), sample.traits())["linux"]["devices"]
        assert [(device["path"], device.get("fileMode")) for device in both] == [
            ("/dev/st0", None),
            ("/dev/fuse", 0o666),
        ]
        assert "name those that it needs" in traits.warnings[0]
    spec = sample.spec(linux={"devices": [disk], "resources": {"devices": [everything, nothing, own]}})
    assert convert_devices(spec, sample.facts(), sample.traits())["linux"]["devices"] == [disk]
