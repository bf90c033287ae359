"""Whether the rootfs is ID-mapped, chowned, or left alone."""

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.syscont.facts import PathFacts
from sysvisor_runc.syscont.rootfs import convert_rootfs
from sysvisor_runc.syscont.traits import Traits
from tests.unit.syscont import sample


def decided(rootfs: PathFacts, *, chown: bool = False, **facts: object) -> Traits:
    traits = sample.traits()
    traits.settings.chown_rootfs = chown
    convert_rootfs(sample.spec(), sample.facts(rootfs=rootfs, **facts), traits)
    return traits


@pytest.mark.parametrize("magic", [sample.EXT4, sample.XFS, sample.TMPFS, 0x1234])
def test_idmapped(magic: int) -> None:
    """Known file systems are ID-mapped, and an unknown one gets its chance."""
    traits = decided(PathFacts(magic))
    assert (traits.rootfs_idmap, traits.chown_rootfs) == (True, False)


def test_owner_fits() -> None:
    """A rootfs that the container's root owns already is shown as it is."""
    traits = decided(PathFacts(sample.EXT4, 231072, 231072))
    assert (traits.rootfs_idmap, traits.chown_rootfs) == (False, False)


def test_a_users_rootfs() -> None:
    """A rootfs that an ordinary user of the host unpacked is mapped like root's."""
    assert decided(PathFacts(sample.EXT4, 1000, 1000)).rootfs_idmap


@pytest.mark.parametrize(
    ("rootfs", "kernel", "reason"),
    [
        (PathFacts(sample.OVERLAY), (6, 18), "overlayfs does not support"),
        (PathFacts(sample.FUSE), (6, 18), "fuse does not support"),
        (PathFacts(sample.TMPFS), (6, 2), "tmpfs supports ID-mapped mounts from Linux 6.3 on"),
        (PathFacts(sample.EXT4, idmap=False), (6, 18), "ext4 does not support"),
    ],
)
def test_impossible(rootfs: PathFacts, kernel: tuple[int, int], reason: str) -> None:
    """Where it cannot be ID-mapped the error says why, unless chown was allowed."""
    with pytest.raises(SpecError, match=reason) as caught:
        decided(rootfs, kernel=kernel)
    assert caught.value.path == "root.path"
    assert "chown-rootfs" in (caught.value.hint or "")
    assert decided(rootfs, kernel=kernel, chown=True).chown_rootfs


@pytest.mark.parametrize("magic", [sample.EXT4, sample.OVERLAY])
def test_command_line(magic: int) -> None:
    """`--uid-shift` decides for every file system, one that cannot be ID-mapped included."""
    assert decided(PathFacts(magic), uid_shift="chown").chown_rootfs
    traits = decided(PathFacts(magic), uid_shift="none")
    assert (traits.rootfs_idmap, traits.chown_rootfs) == (False, False)


def test_what_was_seen_to_work_wins() -> None:
    """A successful try outweighs the table."""
    assert decided(PathFacts(sample.FUSE, idmap=True)).rootfs_idmap


def test_another_containers_rootfs() -> None:
    """Ids beyond the range would all be nobody's: refused, chown or not."""
    with pytest.raises(SpecError, match="owned by 300000:300000"):
        decided(PathFacts(sample.EXT4, 300000, 300000), chown=True)


def test_joined_user_namespace() -> None:
    """Without a range of our own there is nothing to decide."""
    traits = sample.traits(ids=None)
    convert_rootfs(sample.spec(), sample.facts(rootfs=PathFacts(sample.OVERLAY)), traits)
    assert not traits.rootfs_idmap
