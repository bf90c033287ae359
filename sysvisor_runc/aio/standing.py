"""What a process is that lives long and has others below it: its name, and that their orphans come to it.

By python-prctl where it is installed, whose 2 ms of import a resident process can spare, and by our own calls else.
"""

from __future__ import annotations

from sysvisor_runc.aio.libraries import make_importable
from sysvisor_runc.kernel import prctl as own


def stand(name: str) -> None:
    """Be `name` in /proc/PID/comm (the kernel keeps 15 bytes), and the subreaper of what we start: prctl(2)."""
    make_importable()
    try:
        import prctl
    except ImportError:
        own.set_name(name)
        own.prctl(own.PR_SET_CHILD_SUBREAPER, 1)
        return
    prctl.set_name(name)
    prctl.set_child_subreaper(1)
