"""docs/sysvisor-fs-files.md and the table of sysctls do not part."""

import pathlib

from sysvisor_fs.nodes import sysctl_table as table
from sysvisor_fs.nodes.tree import build_tree
from tests.support import fs_cgroup as cg

PAGE = (pathlib.Path(__file__).parents[3] / "docs/sysvisor-fs-files.md").read_text()


def test_every_row_is_explained() -> None:
    """Each sysctl that is not simply the kernel's has its place on the page."""
    assert [path for path in table.ROWS if f"`{path}`" not in PAGE and f"`{path.rpartition('/')[2]}`" not in PAGE] == []


def test_every_file_is_explained() -> None:
    """So has each file of /proc that is served."""
    container = cg.container()
    proc = build_tree().lookup(container, cg.NOBODY, "proc")
    names = [name for name, _ in proc.names(container, cg.NOBODY)]  # type: ignore[attr-defined]  # it is a directory
    assert [name for name in names if f"`/proc/{name}" not in PAGE] == []
