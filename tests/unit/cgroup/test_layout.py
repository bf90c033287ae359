"""Layouts from recorded /proc files."""

from sysvisor_runc.cgroup.layout import parse

TMPFS = b"31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n"


def v1(controllers: bytes, mountpoint: bytes, root: bytes = b"/") -> bytes:
    return b"40 31 0:29 %s %s rw,relatime shared:5 - cgroup cgroup rw,xattr,%s\n" % (root, mountpoint, controllers)


def v2(mountpoint: bytes, root: bytes = b"/") -> bytes:
    return b"41 31 0:38 %s %s rw,relatime - cgroup2 cgroup2 rw,nsdelegate\n" % (root, mountpoint)


def test_v2_alone() -> None:
    """One cgroup2 mount makes a v2 layout, with the caller's cgroup below the mount."""
    layout = parse(v2(b"/sys/fs/cgroup"), b"0::/user.slice/a.scope\n")
    assert layout.kind == "v2"
    assert layout.v1 == ()
    assert layout.unified is not None
    assert layout.unified.own == "/sys/fs/cgroup/user.slice/a.scope"


def test_v1_alone_shares_hierarchies() -> None:
    """Controllers mounted together are one hierarchy that both names lead to; a named one counts too."""
    text = TMPFS + v1(b"cpu,cpuacct", b"/sys/fs/cgroup/cpu,cpuacct") + v1(b"name=systemd", b"/sys/fs/cgroup/systemd")
    layout = parse(text, b"2:cpu,cpuacct:/x\n1:name=systemd:/\n")
    table = layout.by_controller()
    assert layout.kind == "v1"
    assert table["cpu"] is table["cpuacct"]
    assert table["cpu"].own == "/sys/fs/cgroup/cpu,cpuacct/x"
    assert table["name=systemd"].own == "/sys/fs/cgroup/systemd"


def test_hybrid() -> None:
    """v1 controllers beside a cgroup2 mount are hybrid, and cgroup2 goes by the name `unified`."""
    text = v1(b"memory", b"/sys/fs/cgroup/memory") + v2(b"/sys/fs/cgroup/unified")
    layout = parse(text, b"4:memory:/job\n0::/\n")
    assert layout.kind == "hybrid"
    assert {key: h.own for key, h in layout.by_controller().items()} == {
        "memory": "/sys/fs/cgroup/memory/job",
        "unified": "/sys/fs/cgroup/unified",
    }


def test_mounts_decide_not_the_list_of_controllers() -> None:
    """v1 hierarchies that exist but are mounted nowhere here do not count."""
    assert parse(v2(b"/sys/fs/cgroup"), b"4:memory:/job\n0::/\n").kind == "v2"


def test_nothing_mounted() -> None:
    """Without any cgroup mount the layout says so instead of failing."""
    assert parse(TMPFS, b"0::/\n").kind == "none"


def test_second_mount_of_a_hierarchy_is_not_used() -> None:
    """Of two mounts of one hierarchy the one in the usual place wins, whichever comes first."""
    for text in (
        v2(b"/var/lib/x/cgroup") + v2(b"/sys/fs/cgroup"),
        v2(b"/sys/fs/cgroup") + v2(b"/var/lib/x/cgroup"),
    ):
        unified = parse(text, b"0::/\n").unified
        assert unified is not None
        assert unified.mountpoint == "/sys/fs/cgroup"


def test_bound_subtree() -> None:
    """Where a mount shows only the caller's part of the hierarchy, paths count from there."""
    unified = parse(v2(b"/sys/fs/cgroup", b"/docker/ab"), b"0::/docker/ab/sub\n").unified
    assert unified is not None
    assert unified.own == "/sys/fs/cgroup/sub"


def test_own_cgroup_out_of_reach() -> None:
    """A caller outside its cgroup namespace's root, or outside the mounted part, is taken to sit at the top."""
    for root, path in ((b"/", b"/../x"), (b"/docker/ab", b"/docker/abc"), (b"/../..", b"/")):
        unified = parse(v2(b"/sys/fs/cgroup", root), b"0::%s\n" % path).unified
        assert unified is not None
        assert unified.own == "/sys/fs/cgroup"


def test_escapes_and_odd_lines() -> None:
    """Blanks in mount points are unescaped, and a file system that only sounds like cgroup is none."""
    text = b"42 31 0:39 / /mnt/x rw - cgroupish none rw\n" + v2(b"/mnt/a\\040b")
    unified = parse(text, b"0::/\n").unified
    assert unified is not None
    assert unified.mountpoint == "/mnt/a b"
