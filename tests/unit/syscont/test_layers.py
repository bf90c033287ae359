"""The layers of an overlay as mountinfo tells them."""

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.syscont.facts import PathFacts
from sysvisor_runc.syscont.layers import Layers, octal, parse_layers, unescaped, why_not_layers
from sysvisor_runc.syscont.rootfs import convert_rootfs
from tests.unit.syscont import sample


@pytest.mark.parametrize(
    ("text", "lower", "data"),
    [
        ("lowerdir=/a:/b", ["/a", "/b"], []),
        ("lowerdir=l/A:l/B:l/C", ["l/A", "l/B", "l/C"], []),
        (r"lowerdir=/with\040space:/b", ["/with space", "/b"], []),
        (r"lowerdir=/a\134:b:/c", [r"/a\:b", "/c"], []),  # as up to Linux 6.4
        (r"lowerdir=/a\072b:/c", ["/a:b", "/c"], []),  # as from Linux 6.5 on
        (r"lowerdir=/a\134\134:/c", [r"/a\\", "/c"], []),  # a backslash, at the end
        (r"lowerdir=/comma\054here", ["/comma,here"], []),
        ("lowerdir=/a:/b::/d1::/d2", ["/a", "/b"], ["/d1", "/d2"]),
        ("lowerdir+=/a,lowerdir+=/b,datadir+=/d", ["/a", "/b"], ["/d"]),
    ],
)
def test_lower(text: str, lower: list[str], data: list[str]) -> None:
    """Lower layers come out in order, whichever way they were given and are escaped."""
    layers = parse_layers(f"rw,{text},upperdir=/up,workdir=/wk")
    assert (layers.lower, layers.data, layers.upper, layers.work) == (lower, data, "/up", "/wk")


def test_options() -> None:
    """Options that say how layers are read are kept; those that belong to one mount are not."""
    layers = parse_layers("rw,lowerdir=/a:/b,index=on,uuid=on,metacopy=on,redirect_dir=on,volatile,userxattr")
    assert layers.options == [("metacopy", "on"), ("redirect_dir", "on"), ("volatile", None), ("userxattr", None)]
    assert (layers.upper, layers.work, layers.paths()) == ("", "", ["/a", "/b"])


def test_escapes() -> None:
    """The kernel's octal and the backslashes of mount(2) are undone separately."""
    assert octal(r"a\040b\134c") == r"a b\c"
    assert octal("plain") == "plain"
    assert unescaped(r"a\:b\\c") == r"a:b\c"


@pytest.mark.parametrize(
    ("kernel", "magic", "reason"),
    [
        ((6, 18), sample.EXT4, None),
        ((6, 18), 0x1234, None),
        ((5, 18), sample.EXT4, "from Linux 5.19 on"),
        ((6, 1), sample.TMPFS, "tmpfs supports ID-mapped mounts from Linux 6.3 on"),
        ((6, 18), sample.OVERLAY, "overlayfs does not support"),
    ],
)
def test_why_not(kernel: tuple[int, int], magic: int, reason: str | None) -> None:
    """The kernel and every layer's file system must allow it; one that the table has never heard of gets its chance."""
    found = why_not_layers(Layers(["/a"], upper="/b", magics=[magic]), kernel)
    assert (found is None) if reason is None else (reason in (found or ""))


def test_decided() -> None:
    """A rootfs whose layers can be ID-mapped is mounted anew from them; else the error says why."""
    traits = sample.traits()
    layers = Layers(["/a", "/b"], upper="/c", magics=[sample.EXT4])
    convert_rootfs(sample.spec(), sample.facts(rootfs=PathFacts(sample.OVERLAY, layers=layers)), traits)
    assert traits.rootfs_layers is layers
    assert not traits.rootfs_idmap
    layers.missing = "'/gone' cannot be opened"
    with pytest.raises(SpecError, match="its layer '/gone' cannot be opened"):
        convert_rootfs(sample.spec(), sample.facts(rootfs=PathFacts(sample.OVERLAY, layers=layers)), sample.traits())
    nested = Layers(["/a"], magics=[sample.OVERLAY])
    with pytest.raises(SpecError, match="its layers: overlayfs does not support"):
        convert_rootfs(sample.spec(), sample.facts(rootfs=PathFacts(sample.OVERLAY, layers=nested)), sample.traits())


def test_fits_already() -> None:
    """An overlay that the container's ids own already, as of Docker's userns-remap, stays as it is."""
    traits = sample.traits()
    rootfs = PathFacts(sample.OVERLAY, 231072, 231072, layers=Layers(["/a"], magics=[sample.EXT4]))
    convert_rootfs(sample.spec(), sample.facts(rootfs=rootfs), traits)
    assert traits.rootfs_layers is None
