"""The mapping of ids: allocated, given, merged, refused."""

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.types import IDMapping, Spec
from sysvisor_runc.syscont.ids import convert_ids, needs_ids
from sysvisor_runc.syscont.mapping import merged
from tests.unit.syscont import sample


def entry(container: int, host: int, size: int) -> IDMapping:
    return {"containerID": container, "hostID": host, "size": size}


def mapped(uids: list[IDMapping], gids: list[IDMapping]) -> Spec:
    return sample.spec(linux={"uidMappings": uids, "gidMappings": gids})


WHOLE = [entry(0, 100000, 65536)]


def test_allocated() -> None:
    """A spec without mappings asks for a range and gets it."""
    traits = sample.traits(ids=None)
    assert needs_ids(sample.spec())
    linux = convert_ids(sample.spec(), sample.facts(id_range=(7, 9, 65536)), traits)["linux"]
    assert (linux["uidMappings"], linux["gidMappings"]) == ([entry(0, 7, 65536)], [entry(0, 9, 65536)])
    assert traits.ids == (7, 9, 65536)


def test_a_given_mapping_wins() -> None:
    """It is used as it is, and no range is asked for."""
    given = mapped(WHOLE, WHOLE)
    traits = sample.traits(ids=None)
    assert not needs_ids(given)
    assert convert_ids(given, sample.facts(id_range=None), traits) == given
    assert traits.ids == (100000, 100000, 65536)


def test_neighbours_are_merged() -> None:
    """Entries that continue each other on both sides are one range, in whatever order they come."""
    parts = [entry(1000, 101000, 64536), entry(0, 100000, 1000)]
    converted = convert_ids(mapped(parts, WHOLE), sample.facts(), sample.traits(ids=None))
    assert converted["linux"]["uidMappings"] == WHOLE


def test_strangers_are_not_merged() -> None:
    """Neighbours on one side only stay apart."""
    apart = [entry(0, 100000, 1000), entry(1000, 200000, 1000), entry(3000, 201000, 5)]
    assert merged(apart) == apart


@pytest.mark.parametrize(
    ("uids", "gids", "path"),
    [
        (WHOLE, [], "linux.gidMappings"),
        ([], WHOLE, "linux.uidMappings"),
        ([entry(1, 100000, 65536)], WHOLE, "linux.uidMappings[0].containerID"),
        ([entry(0, 100000, 65535)], WHOLE, "linux.uidMappings[0].size"),
        ([entry(0, 0, 65536)], WHOLE, "linux.uidMappings[0].hostID"),
        ([entry(0, 2**32 - 65536, 65536)], WHOLE, "linux.uidMappings[0].size"),
        ([entry(0, 100000, 65536), entry(65536, 500000, 1)], WHOLE, "linux.uidMappings"),
        (WHOLE, [entry(0, 200000, 65536)], "linux.gidMappings[0].hostID"),
        (WHOLE, [entry(0, 100000, 65537)], "linux.gidMappings"),
    ],
)
def test_refused(uids: list[IDMapping], gids: list[IDMapping], path: str) -> None:
    """Each rule that a mapping can break is reported at its JSON path."""
    with pytest.raises(SpecError) as caught:
        convert_ids(mapped(uids, gids), sample.facts(), sample.traits(ids=None))
    assert caught.value.path == path


def test_a_joined_user_namespace_has_its_own_mapping() -> None:
    """Nothing is allocated for a user namespace that exists already; its mapping is taken down where it is known."""
    namespaces = [{"type": kind} for kind in sample.REQUIRED] + [{"type": "user", "path": "/proc/9/ns/user"}]
    given = sample.spec(linux={"namespaces": namespaces})
    traits = sample.traits(ids=None)
    assert not needs_ids(given)
    converted = convert_ids(given, sample.facts(id_range=None, joined_ids=(5, 6, 65536)), traits)
    assert converted["linux"]["uidMappings"] == [entry(0, 5, 65536)]
    assert converted["linux"]["gidMappings"] == [entry(0, 6, 65536)]
    assert traits.ids == (5, 6, 65536)
    assert convert_ids(given, sample.facts(id_range=None, joined_ids=None), traits) == given
    assert traits.ids is None


def test_forgotten_allocation() -> None:
    """A launch that allocated nothing is told, not given the host's ids."""
    with pytest.raises(SpecError, match="no range"):
        convert_ids(sample.spec(), sample.facts(id_range=None), sample.traits(ids=None))
