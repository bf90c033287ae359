"""Triggers of pressure files: only what the kernel reads as what was judged."""

import errno

import pytest

from sysvisor_fs.nodes.pressure import condition
from sysvisor_fs.passthrough import enter, identity
from sysvisor_runc.kernel import prctl


@pytest.mark.parametrize(("data", "text"), [
    (b"some 150000 2000000", b"some 150000 2000000\0"),
    (b"full  1  4000000\n\0", b"full 1 4000000\0"),
])  # fmt: skip
def test_good_triggers_are_written_anew(data: bytes, text: bytes) -> None:
    """In the one form that nothing can be hidden in."""
    assert condition(data) == text


@pytest.mark.parametrize("data", [
    b"", b"some", b"some 1 2000000 3", b"none 1 2000000", b"some 1 500000", b"some x 2000000", b"some 1 2000000x",
    b"some 1 %d" % (2000000 * (1 << 32)), b"some %d 2000000" % (1 << 32), b"some 1 " + b"2" + b"0" * 6000,
    b"some -1 2000000", b"some\0 1 2000000",
])  # fmt: skip
def test_others_are_refused(data: bytes) -> None:
    """Numbers that the kernel would take for others, too: it reads 32 bits of them."""
    with pytest.raises(OSError) as refused:
        condition(data)
    assert refused.value.errno == errno.EINVAL


@pytest.mark.root
def test_capability_is_held_back() -> None:
    """A file is opened without CAP_SYS_RESOURCE, which comes back."""
    before = prctl.capget()[0]
    inside = enter.without(1 << identity.CAP_SYS_RESOURCE, lambda: prctl.capget()[0])
    assert inside == before & ~(1 << identity.CAP_SYS_RESOURCE)
    assert prctl.capget()[0] == before
