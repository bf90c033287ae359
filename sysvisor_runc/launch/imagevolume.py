"""Images as volumes, as CRI-O has them mounted: an overlay of the image and an empty directory. Imports types only.

Overlayfs wants two layers where nobody writes, hence the empty one. The container could neither reach the image's
files on the host nor see their owners: a bind of them shows the same, and can be ID-mapped.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.spec.types import Mount

_LOWER = "lowerdir="


def as_bind(mount: Mount) -> Mount:
    """The mount as a read-only bind, if it is an overlay of one directory and others that are empty."""
    options = mount.get("options") or []
    given = [option for option in options if option.startswith((_LOWER, "upperdir=", "workdir="))]
    if mount.get("type") != "overlay" or len(given) != 1 or not given[0].startswith(_LOWER) or "\\" in given[0]:
        return mount
    first, *others = given[0].removeprefix(_LOWER).split(":")
    try:
        if not others or any(os.listdir(path) for path in others):
            return mount
    except OSError:
        return mount
    kept = [option for option in options if option not in given]
    return {**mount, "type": "bind", "source": first, "options": [*kept, "bind", "ro"]}
