"""User namespaces as descriptors: write id maps, and make one that only carries mappings."""

from __future__ import annotations

import os

from sysvisor_runc.errors import LaunchError, reason
from sysvisor_runc.kernel import file
from sysvisor_runc.kernel.namespaces import CLONE_NEWUSER, clone3

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from sysvisor_runc.spec.types import IDMapping


def write_id_maps(pid: int, uids: Sequence[IDMapping], gids: Sequence[IDMapping]) -> None:
    """Write the maps of `pid`'s new user namespace: each whole, in one write (user_namespaces(7)).

    Raises:
        LaunchError: the kernel refuses a map, or for a caller without privileges newuidmap(1) does.
    """
    for kind, mappings in (("gid", gids), ("uid", uids)):
        text = "".join(f"{m['containerID']} {m['hostID']} {m['size']}\n" for m in mappings)
        try:
            file.write(f"/proc/{pid}/{kind}_map", text)
        except OSError as error:
            if error.errno == 1 and os.geteuid() != 0:
                _write_unprivileged(pid, kind, mappings)
                continue
            raise LaunchError(
                f"linux.{kind}Mappings: write {kind}_map: {reason(error)}",
                hint="ranges must not overlap and must be mapped where the caller is",
            ) from error


def _write_unprivileged(pid: int, kind: str, mappings: Sequence[IDMapping]) -> None:
    """An ordinary user's maps are written by the set-id helpers newuidmap(1) and newgidmap(1)."""
    from sysvisor_runc.launch.spawn import run_program

    args = [f"new{kind}map", str(pid)]
    for mapping in mappings:
        args += [str(mapping["containerID"]), str(mapping["hostID"]), str(mapping["size"])]
    # One id can be mapped without the helpers as well, so that nobody need hear what they think of it.
    single = len(mappings) == 1 and mappings[0]["size"] == 1
    try:
        run_program(args, quiet=single)
    except OSError as error:
        if not single:
            missing = error.errno == 2
            hint = "apt-get install uidmap" if missing else f"are these ids yours, in /etc/sub{kind}?"
            raise LaunchError(f"{args[0]}: {reason(error)}", hint=hint) from error
        if kind == "gid":
            file.write(f"/proc/{pid}/setgroups", "deny")
        mapping = mappings[0]
        file.write(f"/proc/{pid}/{kind}_map", f"{mapping['containerID']} {mapping['hostID']} 1\n")


def user_namespace(uids: Sequence[IDMapping], gids: Sequence[IDMapping]) -> int:
    """A descriptor of a new user namespace with these maps; the process that made it is gone when this returns.

    Raises:
        LaunchError: the kernel refuses a map.
    """
    read_end, write_end = os.pipe()
    pid, pidfd = clone3(CLONE_NEWUSER)
    if pid == 0:
        os.close(write_end)
        os.read(read_end, 1)  # until the parent is done
        os._exit(0)
    try:
        write_id_maps(pid, uids, gids)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(write_end)
        os.close(read_end)
        os.close(pidfd)
        os.waitpid(pid, 0)
