"""What sysvisor-fs serves, in the hands of a container's root: the daemon could do all, and does nothing for it."""

import os
import pathlib
from collections.abc import Callable, Iterator

import pytest

from tests.support import leaks
from tests.support.bundle import Bundle
from tests.support.runtime import Runtime, wait_until

Hostile = Callable[..., Bundle]
PLACES = (
    "/proc/sys", "/proc/pressure", "/sys/module/nf_conntrack", "/sys/devices/virtual/net", "/sys/devices/system/cpu",
)  # fmt: skip
# What changes by itself.
RESTLESS = {
    "aio-nr", "dentry-state", "file-nr", "inode-nr", "nr", "inode-state", "ns_last_pid", "nr_threads", "syncs", "uuid",
    "entropy_avail", "urandom_min_reseed_secs",
}  # fmt: skip


@pytest.fixture
def served(workplace: pathlib.Path) -> Iterator[Runtime]:
    """A runtime whose system containers are served by the session's sysvisor-fs."""
    runtime = Runtime(workplace)
    yield runtime
    runtime.clean()
    wait_until(lambda: leaks.find(runtime) == [], what="an end of everything")


def values() -> dict[str, bytes]:
    """What the host's /proc/sys says."""
    found = {}
    for top, _, names in os.walk("/proc/sys"):
        for name in names:
            try:
                with open(f"{top}/{name}", "rb", buffering=0) as file:
                    found[f"{top}/{name}"] = b"" if name in RESTLESS else file.read(4096)
            except OSError:
                continue  # those that are only written, and those of devices that have just gone
    return found


def log_of_the_daemon() -> str:
    return pathlib.Path(os.environ["SYSVISOR_FS_RUN_DIR"], "sysvisor-fs.log").read_text()


def test_scribbling_on_everything(served: Runtime, hostile: Hostile) -> None:
    """Good values and garbage are written to every file, and every other call tried: no value of the host's changes,
    the daemon has no cause to complain, and answers as before."""
    name = served.id()
    served("run", "--detach", "--bundle", hostile("/bin/sleep", "1000").path, name)
    before, said = values(), log_of_the_daemon()
    served("exec", name, "/attacker", "scribble", *PLACES, timeout=60)
    after = values()
    assert {file: after.get(file, old) for file, old in before.items() if after.get(file, old) != old} == {}
    assert log_of_the_daemon() == said
    assert served("exec", name, "/bin/cat", "/loot", "/proc/sys/kernel/panic").stdout.split()[0] == "scribbled"


def test_a_switch_for_all_is_not_turned(served: Runtime, bundle: Bundle) -> None:
    """net/netfilter/nf_hooks_lwtunnel is in every network namespace, the whole machine's, and cannot be taken back:
    that the container can proves that it has another."""
    switch = "/proc/sys/net/netfilter/nf_hooks_lwtunnel"
    if not os.path.exists(switch):
        pytest.skip("this kernel has no such switch; to force it: CONFIG_LWTUNNEL, and a netfilter table in use")
    bundle.sh(f"echo 1 >{switch} && echo 0 >{switch} && cat {switch}")
    assert served("run", "--bundle", bundle.path, served.id()).stdout == "0\n"
