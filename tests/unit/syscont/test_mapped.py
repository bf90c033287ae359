"""Mounts with mappings of their own, where the spec has no user namespace."""

from sysvisor_runc.spec.types import IDMapping
from sysvisor_runc.syscont.convert import convert
from sysvisor_runc.syscont.facts import PathFacts
from sysvisor_runc.syscont.ids import needs_ids
from tests.unit.syscont import sample


def converted(mappings: list[IDMapping], **linux: object) -> list[IDMapping]:
    mount = sample.bind("/srv", "/srv")
    mount["uidMappings"] = mount["gidMappings"] = mappings
    spec = sample.spec(mounts=[mount], linux=linux)
    own = needs_ids(spec)
    facts = sample.facts(sources={"/srv": PathFacts(sample.EXT4)}, id_range=sample.RANGE if own else None)
    result, _ = convert(spec, facts)
    found = next(mount for mount in result["mounts"] if mount["destination"] == "/srv")
    return found["uidMappings"]


def test_into_the_range() -> None:
    """What is mapped to an id means the container's id; what goes beyond its range is left out."""
    given: list[IDMapping] = [
        {"containerID": 5, "hostID": 1000, "size": 10},
        {"containerID": 100, "hostID": 65000, "size": 1000},
        {"containerID": 5000, "hostID": 100000, "size": 1},
    ]
    assert converted(given) == [
        {"containerID": 5, "hostID": 231072 + 1000, "size": 10},
        {"containerID": 100, "hostID": 231072 + 65000, "size": 536},
    ]


def test_all_beyond() -> None:
    """Where nothing is left the map stays: it must not be empty."""
    given: list[IDMapping] = [{"containerID": 0, "hostID": 100000, "size": 10}]
    assert converted(given) == given


def test_a_spec_with_a_user_namespace_of_its_own() -> None:
    """Who knows the container's ids on the host means what is written."""
    given: list[IDMapping] = [{"containerID": 0, "hostID": 100, "size": 10}]
    own: list[IDMapping] = [{"containerID": 0, "hostID": 231072, "size": 65536}]
    assert converted(given, uidMappings=own, gidMappings=own) == given
