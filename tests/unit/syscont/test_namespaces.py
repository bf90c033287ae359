"""Which namespaces a system container gets, and which wishes are refused."""

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec.types import Namespace
from sysvisor_runc.syscont.namespaces import convert_namespaces
from tests.unit.syscont import sample


def types(given: list[Namespace], **facts: object) -> list[str]:
    converted = convert_namespaces(sample.spec(linux={"namespaces": given}), sample.facts(**facts), sample.traits())
    return [ns["type"] for ns in converted["linux"]["namespaces"]]


def required(**paths: str) -> list[Namespace]:
    return [{"type": kind, "path": paths[kind]} if kind in paths else {"type": kind} for kind in sample.REQUIRED]


def test_added() -> None:
    """User, cgroup and time namespaces come by themselves, after the spec's own."""
    assert types(required()) == [*sample.REQUIRED, "user", "cgroup", "time"]


def test_given_ones_stay() -> None:
    """What the spec names already is not added again."""
    assert types([{"type": "time"}, *required(), {"type": "user"}]) == ["time", *sample.REQUIRED, "user", "cgroup"]


@pytest.mark.parametrize("kind", sample.REQUIRED)
def test_sharing_with_the_host_is_refused(kind: str) -> None:
    """Each required namespace that is missing is named, with what to do."""
    given = [ns for ns in required() if ns["type"] != kind]
    with pytest.raises(SpecError, match=rf"linux\.namespaces: .* cannot share the {kind} namespace") as caught:
        types(given)
    assert caught.value.hint is not None
    assert f'"{kind}"' in caught.value.hint


@pytest.mark.parametrize("kind", [*sample.REQUIRED, "user", "cgroup", "time"])
def test_the_hosts_own_by_path_is_refused(kind: str) -> None:
    """A path that leads to the host's own namespace is sharing it, too."""
    path = "/proc/1/ns/x"
    given: list[Namespace] = [*(ns for ns in required() if ns["type"] != kind), {"type": kind, "path": path}]
    with pytest.raises(SpecError, match=f"is the host's {kind} namespace"):
        types(given, ns_shared={path: True})


def test_another_containers_network_needs_its_user_namespace() -> None:
    """A network namespace by path is refused unless the user namespace is given by path, too."""
    given = required(network="/proc/9/ns/net")
    with pytest.raises(SpecError, match=r"linux\.namespaces\[4\]\.path: .*user namespace that owns it"):
        types(given)
    assert "cgroup" in types([*given, {"type": "user", "path": "/proc/9/ns/user"}])


def test_what_is_foreign_in_a_pod() -> None:
    """Beside a user namespace that is joined, the host keeps what belongs to it, and has no share in the rest."""
    given = required(network="/proc/9/ns/net", ipc="/proc/9/ns/ipc")
    given.append({"type": "user", "path": "/proc/9/ns/user"})
    traits = sample.traits()
    facts = sample.facts(ns_ours={"/proc/9/ns/net": True})
    convert_namespaces(sample.spec(linux={"namespaces": given}), facts, traits)
    assert traits.foreign == {"network"}


def test_a_network_of_the_hosts_making() -> None:
    """One that the caller's user namespace owns, as Podman makes it, may be joined; what that lacks is a warning."""
    given, traits = required(network="/run/netns/x"), sample.traits()
    facts = sample.facts(ns_ours={"/run/netns/x": True})
    convert_namespaces(sample.spec(linux={"namespaces": given}), facts, traits)
    assert "cannot be changed inside" in traits.warnings[0]


def test_other_namespaces_may_be_joined() -> None:
    """A pod's ipc namespace is no concern of ours."""
    assert types(required(ipc="/proc/9/ns/ipc"))


def test_small_kernels() -> None:
    """A kernel without time namespaces gets none; one without user namespaces is no host."""
    known = frozenset((*sample.REQUIRED, "user", "cgroup"))
    assert "time" not in types(required(), namespaces=known)
    with pytest.raises(SpecError, match="no user namespaces"):
        types(required(), namespaces=known - {"user"})
