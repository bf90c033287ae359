"""What is taken for a sysctl's value, and what is refused."""

import errno

import pytest

from sysvisor_fs.nodes import sysctl_table as table
from sysvisor_fs.nodes.sysctl_values import integers, one_of, unsigned


@pytest.mark.parametrize(("data", "expected"), [
    (b"1\n", b"1\n"), (b" 7 ", b"7\n"), (b"0x1f", b"31\n"), (b"010", b"8\n"), (b"-5\n", b"-5\n"), (b"3 4\n", b"3\n"),
    (b"2147483647", b"2147483647\n"), (b"-2147483648", b"-2147483648\n"), (b"1\0junk", b"1\n"),
])  # fmt: skip
def test_integer_taken(data: bytes, expected: bytes) -> None:
    """As strtoul with base 0 reads it, up to the first separator."""
    assert integers()(b"0\n", data) == expected


@pytest.mark.parametrize("data", [
    b"", b"\n", b"x", b"5x", b"1,2", b"2147483648", b"-2147483649", b"99999999999999999999999", b"+1", b"--1", b"- 1",
    b"08", b"0x", b"1.5", b"\xff", b"1" * 5000,
])  # fmt: skip
def test_integer_refused(data: bytes) -> None:
    """EINVAL for what is no number, or none that fits."""
    with pytest.raises(OSError) as refused:
        integers()(b"0\n", data)
    assert refused.value.errno == errno.EINVAL


def test_vector_keeps_what_is_not_written() -> None:
    """kernel.printk has four numbers; one that is written leaves the other three."""
    assert integers(count=4)(b"4\t4\t1\t7\n", b"8") == b"8\t4\t1\t7\n"
    assert integers(count=4)(b"4\t4\t1\t7\n", b"1 2 3 4 5\n") == b"1\t2\t3\t4\n"


def test_unsigned() -> None:
    """All of an unsigned long, and nothing below the least."""
    assert unsigned()(b"9\n", b"18446744073709551615") == b"18446744073709551615\n"
    for data in (b"4", b"-1", b"-0", b"18446744073709551616"):
        with pytest.raises(OSError):
            unsigned(5)(b"9\n", data)


def test_words() -> None:
    """Only those that are known."""
    parse = one_of(b"fq", b"sfq")
    assert parse(b"", b"fq\n") == b"fq\n"
    with pytest.raises(OSError):
        parse(b"", b"fq_evil\n")


@pytest.mark.parametrize(("path", "good", "bad"), [
    ("fs/nr_open", b"1048576", b"63"), ("fs/protected_symlinks", b"1", b"2"), ("kernel/kptr_restrict", b"2", b"3"),
    ("kernel/dmesg_restrict", b"0", b"2"), ("kernel/panic", b"-1", b"soon"), ("kernel/sysrq", b"511", b"512"),
    ("kernel/pid_max", b"4194304", b"4194305"), ("kernel/yama/ptrace_scope", b"3", b"4"),
    ("vm/overcommit_memory", b"2", b"3"), ("net/core/default_qdisc", b"fq", b"nosuch"),
    ("net/netfilter/nf_conntrack_max", b"1", b"-1"), ("kernel/pid_max", b"301", b"300"),
    ("net/ipv4/neigh/default/gc_thresh2", b"0", b"-1"), ("net/ipv4/vs/conntrack", b"1", b"2"),
])  # fmt: skip
def test_ranges_of_the_table(path: str, good: bytes, bad: bytes) -> None:
    """Each row judges as the kernel's own entry does."""
    parse = table.ROWS[path].parse
    assert parse is not None
    assert parse(b"0\n", good).strip() == good
    with pytest.raises(OSError):
        parse(b"0\n", bad)


def test_ptrace_scope_is_never_taken_back() -> None:
    """3 stays 3, as on a machine that is not started anew."""
    parse = table.ROWS["kernel/yama/ptrace_scope"].parse
    assert parse is not None
    assert parse(b"2\n", b"1") == b"1\n"
    assert parse(b"3\n", b"3") == b"3\n"
    with pytest.raises(OSError):
        parse(b"3\n", b"1")


def test_every_stored_row_has_a_judge() -> None:
    """A row that the daemon keeps must not take just anything."""
    assert [path for path, row in table.ROWS.items() if row.kind in (table.STORE, table.NET) and not row.parse] == []
