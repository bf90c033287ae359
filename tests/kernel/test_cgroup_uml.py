"""The cgroup tests on the layouts that this machine does not have, in user-mode-linux on its own root file system.

Nothing is downloaded and nothing installed inside: the host's files are the read-only lower layer of a throw-away
overlay, and the guest runs `test_cgroup.py` with pure v2 or with full v1.
"""

import pathlib
import platform
import shutil
import subprocess
import sys
import sysconfig

import pytest

pytestmark = [pytest.mark.root, pytest.mark.slow]

ROOT = pathlib.Path(__file__).parents[2]

# The guest's init. $1… are not passed on by the kernel: what it needs is written into the script.
INIT = r"""#!/bin/sh
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8
mount -t proc proc /proc
mount -t tmpfs -o size=100%,mode=755 tmpfs /mnt
mkdir /mnt/upper /mnt/work /mnt/root
busybox insmod /usr/lib/uml/modules/$(uname -r)/kernel/fs/overlayfs/overlay.ko
mount -t overlay -o lowerdir=/,upperdir=/mnt/upper,workdir=/mnt/work overlay /mnt/root
cd /mnt/root
mount -t proc proc proc; mount -t sysfs sysfs sys; mount -t devtmpfs devtmpfs dev; mount -t tmpfs tmpfs tmp
mkdir -p dev/pts dev/shm; mount -t devpts devpts dev/pts; mount -t tmpfs tmpfs dev/shm; mount -t tmpfs tmpfs run
mkdir -p .{results}; mount -t hostfs -o {results} none .{results}
mkdir .old; pivot_root . .old; cd /; umount -l /.old
if [ {version} = v2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    mkdir /sys/fs/cgroup/init; echo $$ >/sys/fs/cgroup/init/cgroup.procs
else
    mount -t tmpfs cgroup /sys/fs/cgroup
    for name in cpu,cpuacct cpuset memory devices freezer pids blkio net_cls net_prio hugetlb none,name=systemd; do
        mkdir /sys/fs/cgroup/$name
        mount -t cgroup -o $name cgroup /sys/fs/cgroup/$name 2>/dev/null || rmdir /sys/fs/cgroup/$name
    done
fi
cd {root}
{python} -m pytest -q -rs -p no:cacheprovider -o addopts=--import-mode=importlib tests/kernel/test_cgroup.py \
    >{results}/output 2>&1 </dev/null
echo $? >{results}/status
sync; echo o >/proc/sysrq-trigger; sleep 10
"""


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_other_layouts(version: str, tmp_path: pathlib.Path) -> None:
    """Everything that holds on this machine's layout holds on pure v2 with controllers, and on plain v1."""
    kernel = shutil.which("linux.uml")
    if kernel is None or shutil.which("busybox") is None or platform.machine() != "x86_64":
        pytest.skip("no user-mode-linux; to force it: apt-get install user-mode-linux busybox-static")
    init = tmp_path / "init"
    # The interpreter that runs this, with its packages: a virtual environment is a file of the host like any other.
    python = f"env PYTHONPATH={sysconfig.get_paths()['purelib']} {sys.executable}"
    init.write_text(
        INIT.replace("{results}", str(tmp_path))
        .replace("{version}", version)
        .replace("{root}", str(ROOT))
        .replace("{python}", python)
    )
    init.chmod(0o755)
    arguments = ["mem=1G", "root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}"]
    quiet = ["con=null", "con0=null,fd:1", "ssl=null", "panic=-1", "quiet", f"umid=sysvisor-{tmp_path.name}"]
    console = subprocess.run(
        [kernel, *arguments, *quiet],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=100,
        check=False,
    )
    output = tmp_path / "output"
    assert output.exists(), console.stdout.decode(errors="replace")[-2000:]
    text = output.read_text()
    assert (tmp_path / "status").read_text().strip() == "0", text
    assert " passed" in text
