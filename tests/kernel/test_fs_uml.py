"""The views and sysctls on a kernel and a cgroup layout that this machine does not have: pure v2 in user-mode-linux."""

import pathlib
import sys
import sysconfig

import pytest

from tests.support import uml

pytestmark = [pytest.mark.root, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.timeout(400)
def test_pure_v2(tmp_path: pathlib.Path) -> None:
    """Everything that holds on this machine's layout holds on pure v2 with controllers, and on an older kernel."""
    python = f"env PYTHONPATH={sysconfig.get_paths()['purelib']} {sys.executable}"
    options = "-q -rs -p no:cacheprovider -o addopts=--import-mode=importlib"
    script = f"cd {ROOT} && {python} -m pytest {options} tests/kernel/test_fs_views.py tests/kernel/test_fs_sysctl.py"
    assert " passed" in uml.run(tmp_path, "v2", script, timeout=300)
