"""Capabilities: the five sets of root and of others, unknown names, and what the caller lacks itself."""

import pytest

from sysvisor_runc.kernel import capability
from sysvisor_runc.kernel.prctl import capget
from tests.support.bundle import Bundle
from tests.support.inside import observe, start, status, user_namespace
from tests.support.runtime import Runtime

SETS = {
    "bounding": "CapBnd",
    "effective": "CapEff",
    "permitted": "CapPrm",
    "inheritable": "CapInh",
    "ambient": "CapAmb",
}


def mask(*names: str) -> int:
    """The bits of capabilities named without CAP_."""
    return sum(1 << capability.NAMES.index(f"CAP_{name}") for name in names)


def grant(bundle: Bundle, **sets: list[str]) -> None:
    bundle.process["capabilities"] = {kind: [f"CAP_{name}" for name in names] for kind, names in sets.items()}


def found(fields: dict[str, str]) -> dict[str, int]:
    return {kind: int(fields[field], 16) for kind, field in SETS.items()}


def test_five_sets_of_root(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Each as given. What execve(2) does to root's is the kernel's: permitted becomes inheritable and bounding."""
    grant(bundle, bounding=["KILL", "CHOWN", "NET_RAW"], permitted=["KILL", "CHOWN"], effective=["KILL"],
          inheritable=["CHOWN"], ambient=["CHOWN"])  # fmt: skip
    _, pid = start(plain_runtime, bundle)
    sets = found(status(pid))
    assert sets["bounding"] == mask("KILL", "CHOWN", "NET_RAW")
    assert sets["inheritable"] == mask("CHOWN")
    assert sets["permitted"] == sets["effective"] == mask("KILL", "CHOWN", "NET_RAW")


@pytest.mark.parametrize("userns", [False, True])
def test_five_sets_of_a_user(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """Others keep over execve(2) what is ambient, and nothing else."""
    if userns:
        user_namespace(bundle)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    grant(bundle, bounding=["KILL", "CHOWN", "NET_RAW"], permitted=["KILL", "CHOWN"], effective=["KILL", "CHOWN"],
          inheritable=["KILL"], ambient=["KILL"])  # fmt: skip
    _, pid = start(plain_runtime, bundle)
    assert found(status(pid)) == {
        "bounding": mask("KILL", "CHOWN", "NET_RAW"),
        "effective": mask("KILL"),
        "permitted": mask("KILL"),
        "inheritable": mask("KILL"),
        "ambient": mask("KILL"),
    }


def test_empty_sets(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Root with none can do nothing of root's."""
    bundle.process["capabilities"] = {}
    (bundle.rootfs / "file").write_text("text")
    (bundle.rootfs / "file").chmod(0)
    seen = observe(plain_runtime, bundle, caps="grep Cap /proc/self/status", chown="chown 1 /tmp; true",
                   name="hostname x; true")  # fmt: skip
    assert {int(word, 16) for word in seen["caps"].split()[1::2]} == {0}
    assert "not permitted" in seen["chown"] and "not permitted" in seen["name"]


def test_a_users_namespace_has_every_capability(plain_runtime: Runtime, bundle: Bundle) -> None:
    """Also those that the caller itself lacks: they count in the container's own namespace only."""
    user_namespace(bundle)
    every = [name.removeprefix("CAP_") for name in capability.NAMES[: capability.last_cap() + 1]]
    grant(bundle, bounding=every, permitted=every, effective=every)
    _, pid = start(plain_runtime, bundle)
    assert found(status(pid))["effective"] == (1 << capability.last_cap() + 1) - 1


def test_unknown_ones_are_a_warning(plain_runtime: Runtime, bundle: Bundle) -> None:
    """As are those that the caller lacks, and ambient ones that are not inheritable."""
    grant(bundle, bounding=["KILL", "FROM_THE_FUTURE"], permitted=["KILL"], effective=["KILL"], ambient=["KILL"])
    bundle.run("/bin/true")
    said = plain_runtime("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "CAP_FROM_THE_FUTURE" in said
    assert "can't raise ambient capability CAP_KILL" in said
    _, held, _ = capget()
    lacking = [
        name for number, name in enumerate(capability.NAMES[: capability.last_cap() + 1]) if not held >> number & 1
    ]
    if not lacking:
        return
    grant(bundle, bounding=[lacking[0].removeprefix("CAP_")])
    bundle.run("/bin/true")
    assert lacking[0] in plain_runtime("run", "--bundle", bundle.path, plain_runtime.id()).stderr


def test_processes_that_join(plain_runtime: Runtime, bundle: Bundle) -> None:
    """They get the container's sets, and with --cap one more."""
    grant(bundle, bounding=["KILL"], permitted=["KILL"], effective=["KILL"])
    name, _ = start(plain_runtime, bundle)
    same = plain_runtime("exec", name, "/bin/grep", "CapEff", "/proc/self/status").stdout
    more = plain_runtime("exec", "--cap", "CAP_CHOWN", name, "/bin/grep", "CapEff", "/proc/self/status").stdout
    assert int(same.split()[1], 16) == mask("KILL")
    assert int(more.split()[1], 16) == mask("KILL", "CHOWN")
