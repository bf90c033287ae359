"""The cgroup tests on the layouts that this machine does not have, in user-mode-linux on its own root file system:
pure v2 with controllers, and full v1."""

import pathlib
import sys
import sysconfig

import pytest

from tests.support import uml

pytestmark = [pytest.mark.root, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]


# What speaks of cgroups by a command.
COMMANDS = {"v1": "", "v2": "'tests/integration/test_events.py::test_an_out_of_memory_kill[plain]'"}


@pytest.mark.timeout(300)  # one slow CPU, and less of it on a busy machine
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_other_layouts(version: str, tmp_path: pathlib.Path) -> None:
    """Everything that holds on this machine's layout holds on pure v2 with controllers, and on plain v1."""
    # The interpreter that runs this, with its packages: a virtual environment is a file of the host like any other.
    python = f"env PYTHONPATH={sysconfig.get_paths()['purelib']} {sys.executable}"
    options = "-q -rs -p no:cacheprovider -o addopts=--import-mode=importlib"
    script = f"cd {ROOT} && {python} -m pytest {options} tests/kernel/test_cgroup.py {COMMANDS[version]}"
    assert " passed" in uml.run(tmp_path, version, script, timeout=280)
