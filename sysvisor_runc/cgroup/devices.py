"""Which devices a container may use: `linux.resources.devices` as rules, and the v1 lists that enforce them.

The v2 program is made in `devices_v2`. Rules only ever decide about access to device nodes, not about their existence.
"""

from __future__ import annotations

import errno
import os

from sysvisor_runc.cgroup.device_rule import ALL, ANY, LETTERS, MKNOD, Rule, text
from sysvisor_runc.cgroup.file import failure, read
from sysvisor_runc.errors import CgroupError, SpecError
from sysvisor_runc.kernel.file import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.cgroup.device_rule import Key
    from sysvisor_runc.spec.types import DeviceCgroup

# Allowed in every container, after the spec's own rules: what the runtime specification demands ("Default Devices"),
# and as runc does mknod of anything (using it is another matter), /dev/pts and /dev/net/tun.
_DEFAULTS: tuple[tuple[str, int, int, int], ...] = (
    ("c", ANY, ANY, MKNOD),
    ("b", ANY, ANY, MKNOD),
    ("c", 1, 3, ALL),  # null
    ("c", 1, 5, ALL),  # zero
    ("c", 1, 7, ALL),  # full
    ("c", 1, 8, ALL),  # random
    ("c", 1, 9, ALL),  # urandom
    ("c", 5, 0, ALL),  # tty
    ("c", 5, 2, ALL),  # ptmx
    ("c", 136, ANY, ALL),  # pts
    ("c", 10, 200, ALL),  # net/tun
)


class Devices:
    """The device rules of a container, a step beside `Setting`s.

    Attributes:
        allow: what happens to a device that no rule names. Deny, unless a rule for all types says otherwise.
        rules: in order, the last match wins; none of them for all types: such a rule replaces all before it.
    """

    __slots__ = ("allow", "rules")

    controller = "devices"

    def __init__(self, wanted: list[DeviceCgroup], *, defaults: bool = True) -> None:
        """Raises SpecError: an unknown type, a negative number, no access."""
        self.allow = False
        self.rules: list[Rule] = []
        for index, item in enumerate(wanted):
            self._add(item, f"linux.resources.devices[{index}]")
        if defaults:
            self.rules += [Rule(True, type_, major, minor, mask) for type_, major, minor, mask in _DEFAULTS]

    def _add(self, item: DeviceCgroup, where: str) -> None:
        access = item.get("access") or ""
        if not access:
            raise SpecError(f"{where}.access", "must not be empty")
        type_ = item.get("type") or "a"
        if type_ == "a":
            # As the kernel has it: a rule for all types is for all devices and all accesses.
            self.allow = item["allow"]
            self.rules.clear()
            return
        if type_ not in ("b", "c", "u"):
            raise SpecError(f"{where}.type", f"{type_!r} is none of a, b, c")
        major, minor = item.get("major", ANY), item.get("minor", ANY)
        if major < ANY or minor < ANY:
            raise SpecError(where, f"{major}:{minor} is no device number")
        mask = sum(bit for letter, bit in LETTERS if letter in access)
        self.rules.append(Rule(item["allow"], "c" if type_ == "u" else type_, major, minor, mask))

    def describe(self) -> str:
        return ", ".join([f"devices: {'allow' if self.allow else 'deny'} all", *(r.describe() for r in self.rules)])

    def apply(self, path: str | None, *, v2: bool) -> None:
        """Enforce the rules on the cgroup at `path`.

        Raises:
            CgroupError: no devices controller, or the kernel refuses. Without the host's privileges device rules cannot
                be changed at all (neither v1 lists nor eBPF), not even in a delegated cgroup; nor can device nodes be
                made then, and the rules of what is around hold, so that is no error.
        """
        if path is None:
            raise CgroupError("no devices controller: container could not join or create cgroup")
        try:
            if v2:
                from sysvisor_runc.cgroup.devices_v2 import attach

                attach(path, self.rules, allow=self.allow)
            else:
                self._apply_v1(path)
        except OSError as e:
            if e.errno in (errno.EPERM, errno.EACCES) and (os.geteuid() != 0 or _in_user_namespace()):
                return
            raise failure("set the device rules of", path, e) from None

    def _apply_v1(self, path: str) -> None:
        for file, value in self.v1_writes(read(path + "/devices.list")):
            write(f"{path}/{file}", value)

    # ---- v1

    def v1_exceptions(self) -> dict[Key, int]:
        """The rules as v1 keeps them: exceptions from `allow`, device → accesses.

        Raises:
            SpecError: a rule that cuts a hole into a wider one: v1 cannot say that (v2 can).
        """
        table: dict[Key, int] = {}
        for rule in self.rules:
            key = (rule.type, rule.major, rule.minor)
            if rule.allow != self.allow:
                table[key] = table.get(key, 0) | rule.mask
                continue
            for other, mask in list(table.items()):
                if not (mask & rule.mask and _overlap(key, other)):
                    continue
                if not _covers(key, other):
                    raise SpecError(
                        "linux.resources.devices",
                        f"{rule.describe()} would cut a hole into {text(other, mask)}, which cgroup v1 cannot do",
                    )
                table[other] = mask & ~rule.mask
        return {key: mask for key, mask in table.items() if mask}

    def v1_writes(self, current: str) -> list[tuple[str, str]]:
        """The (file, value) writes that lead from the `devices.list` contents `current` to these rules.

        What both have stays untouched, and allowing goes before denying, so that a running container never meets a
        moment without a device that it has before and after.
        """
        target = self.v1_exceptions()
        add, drop = ("devices.deny", "devices.allow") if self.allow else ("devices.allow", "devices.deny")
        have = _parse_list(current)
        writes: list[tuple[str, str]] = []
        if have is None or self.allow:
            # Where all is allowed the list does not show the exceptions, and switching over forgets them all.
            if have is not None or not self.allow:
                writes.append(("devices.allow" if self.allow else "devices.deny", "a"))
            have = {}
        for key, mask in target.items():
            if missing := mask & ~have.get(key, 0):
                writes.append((add, text(key, missing)))
        for key, mask in have.items():
            if extra := mask & ~target.get(key, 0):
                writes.append((drop, text(key, extra)))
        return writes


def _parse_list(text: str) -> dict[Key, int] | None:
    """The exceptions in a `devices.list`; None where all devices are allowed."""
    table: dict[Key, int] = {}
    for line in text.splitlines():
        type_, numbers, access = line.split()
        if type_ == "a":
            return None
        major, minor = (ANY if number == "*" else int(number) for number in numbers.split(":"))
        table[type_, major, minor] = sum(bit for letter, bit in LETTERS if letter in access)
    return table


def _overlap(a: Key, b: Key) -> bool:
    return a[0] == b[0] and all(x == y or ANY in (x, y) for x, y in zip(a[1:], b[1:], strict=True))


def _covers(wide: Key, narrow: Key) -> bool:
    return wide[0] == narrow[0] and all(x in (ANY, y) for x, y in zip(wide[1:], narrow[1:], strict=True))


def _in_user_namespace() -> bool:
    return read("/proc/self/uid_map").split() != ["0", "0", "4294967295"]
