"""Who the container's process is: ids, capabilities, no-new-privileges, as calls of the last stage.

The order is the kernel's: the bounding set falls while CAP_SETPCAP is there, ids change with KEEPCAPS so that permitted
capabilities survive, ambient ones come last since they need permitted and inheritable (capabilities(7)).
"""

from __future__ import annotations

from sysvisor_runc.child.stage import IGNORE_ERROR, Call
from sysvisor_runc.kernel.prctl import (
    PR_CAP_AMBIENT,
    PR_CAP_AMBIENT_CLEAR_ALL,
    PR_CAP_AMBIENT_RAISE,
    PR_CAPBSET_DROP,
    PR_SET_KEEPCAPS,
    capset_data,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Capabilities:
    """The five sets as bit masks; None where the spec says nothing and the process keeps what it has."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted")

    def __init__(self, bounding: int, effective: int, permitted: int, inheritable: int, ambient: int) -> None:
        self.bounding = bounding
        self.effective = effective
        self.permitted = permitted
        self.inheritable = inheritable
        self.ambient = ambient

    def describe(self) -> str:
        return (
            f"capabilities bounding={self.bounding:x} effective={self.effective:x} permitted={self.permitted:x} "
            f"inheritable={self.inheritable:x} ambient={self.ambient:x}"
        )


class Identity:
    """Attributes: uid, gid, groups (None: leave them), capabilities, no_new_privs."""

    __slots__ = ("capabilities", "gid", "groups", "no_new_privs", "uid")

    def __init__(
        self, uid: int, gid: int, groups: Sequence[int] | None, capabilities: Capabilities | None, *, no_new_privs: bool
    ) -> None:
        self.uid = uid
        self.gid = gid
        self.groups = None if groups is None else tuple(groups)
        self.capabilities = capabilities
        self.no_new_privs = no_new_privs

    def may_search(self) -> bool:
        """Whether it is root and passes directories whatever their mode (CAP_DAC_OVERRIDE), as far as we know."""
        return self.uid == 0 and (self.capabilities is None or bool(self.capabilities.effective >> 1 & 1))

    def describe(self) -> str:
        groups = "" if not self.groups else " groups " + ",".join(map(str, self.groups))
        return f"become {self.uid}:{self.gid}{groups}"


def bits(mask: int) -> list[int]:
    """The numbers of the bits set in `mask`, ascending."""
    return [n for n in range(mask.bit_length()) if mask >> n & 1]


def calls(identity: Identity, last_cap: int) -> list[Call]:
    """The system calls that turn root of the container into `identity`; `last_cap` is the kernel's highest capability.

    Capabilities must be ones that the process holds by then: the plan leaves others out, with a warning.
    """
    capabilities = identity.capabilities
    made = []
    if capabilities is not None:
        made += [
            Call("prctl", PR_CAPBSET_DROP, number, 0, 0, 0, what="drop from the bounding set")
            for number in range(last_cap + 1)
            if not capabilities.bounding >> number & 1
        ]
    made.append(Call("prctl", PR_SET_KEEPCAPS, 1, 0, 0, 0))
    if identity.groups is not None:
        groups = b"".join(gid.to_bytes(4, "little") for gid in identity.groups)
        made.append(Call("setgroups", len(identity.groups), groups, what="setgroups"))
    gid, uid = identity.gid, identity.uid
    made.append(Call("setresgid", gid, gid, gid, what=f"set gid {gid}"))
    made.append(Call("setresuid", uid, uid, uid, what=f"set uid {uid}"))
    made.append(Call("prctl", PR_SET_KEEPCAPS, 0, 0, 0, 0))
    if capabilities is not None:
        made += _capability_calls(capabilities)
    return made


def _capability_calls(wanted: Capabilities) -> list[Call]:
    header, data = capset_data(wanted.effective, wanted.permitted, wanted.inheritable)
    made = [
        Call("capset", header, data, what="set capabilities"),
        Call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, what="clear ambient capabilities"),
    ]
    # EPERM where one is not both permitted and inheritable: runc warns and goes on.
    made += [
        Call("prctl", PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number, 0, 0, flags=IGNORE_ERROR)
        for number in bits(wanted.ambient)
    ]
    return made
