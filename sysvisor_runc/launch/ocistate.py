"""The state of a container as the runtime-spec defines it, which hooks and seccomp agents are given."""

from __future__ import annotations

from sysvisor_runc.jsonlight import dumps


def state_json(
    container_id: str, oci_version: str, status: str, pid: int, bundle: str, annotations: dict[str, str]
) -> bytes:
    """The state of a container as the runtime-spec defines it (runtime.md, "State")."""
    state: dict[str, object] = {"ociVersion": oci_version, "id": container_id, "status": status, "pid": pid}
    state["bundle"] = bundle
    if annotations:
        state["annotations"] = annotations
    return dumps(state).encode("utf-8", "surrogateescape")
