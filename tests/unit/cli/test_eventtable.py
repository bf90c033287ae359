"""Events as a table: columns that line up, whatever comes."""

import io

from sysvisor_runc.cli.eventtable import EventTable, amount

TIME = "2026-03-01T10:00:00.12345Z"


def lines(*events: dict[str, object], ids: list[str] | None = None) -> list[str]:
    out = io.StringIO()
    table = EventTable(out, ids or [])
    for event in events:
        table.show(event)
    return out.getvalue().splitlines()


def test_columns_line_up() -> None:
    """Each cell begins below its title."""
    title, *rows = lines(
        {"type": "start", "id": "web", "seq": 7, "time": TIME, "data": {"pid": 12, "tty": True}},
        {"type": "exit", "id": "a-container", "seq": 12345, "time": "2026-03-01T10:00:00Z", "data": {"code": 1}},
        {"type": "oom", "id": "web"},
        {"type": "dropped", "count": 5},
    )
    for name, cells in (
        ("SEQ", ("7", "12345", "-", "-")),
        ("TYPE", ("start", "exit", "oom", "dropped")),
        ("ID", ("web", "a-container", "web", "-")),
        ("DETAILS", ("pid=12 tty=yes", "code=1", "", "count=5")),
    ):
        column = title.index(name)
        assert [row[column:][: len(cell)] for row, cell in zip(rows, cells, strict=True)] == list(cells)
    assert [row[:25] for row in rows[:2]] == ["2026-03-01T10:00:00.123Z ", "2026-03-01T10:00:00.000Z "]


def test_a_long_id_makes_its_column_wide() -> None:
    """As wide as the container that is asked for needs it."""
    name = "x" * 40
    title, row = lines({"type": "exit", "id": name, "data": {"code": 0}}, ids=[name])
    assert row[title.index("DETAILS") :] == "code=0"


def test_usage_in_few_words() -> None:
    """Time used at first, then per cent of a CPU; limits where there are any."""
    data = {
        "cpu": {"usage": {"total": 1_500_000_000}},
        "memory": {"usage": {"usage": 3 << 20, "limit": 1 << 30}},
        "pids": {"current": 4},
        "network_interfaces": [{"RxBytes": 2048, "TxBytes": 10}, {"RxBytes": 0, "TxBytes": 0}],
    }
    event: dict[str, object] = {"type": "stats", "id": "web", "data": data}
    _, first, second = lines(event, event)
    assert first.endswith("cpu=1.50s memory=3.0MiB/1.0GiB pids=4 net=2.0KiB/10B")
    assert "cpu=0.0% " in second
    unlimited = {"memory": {"usage": {"usage": 0, "limit": 9223372036854771712}}, "pids": {"limit": 9}}
    assert lines({"type": "stats", "id": "web", "data": unlimited})[1].endswith("cpu=0.00s memory=0B pids=0/9")


def test_what_containers_say_does_not_steer_the_terminal() -> None:
    """Control codes are shown, not sent."""
    assert "\x1b" not in lines({"type": "health", "id": "web", "data": {"output": "\x1b[2Jhello\n"}})[1]


def test_amounts() -> None:
    """Three digits at most, in the unit that fits."""
    assert [amount(n) for n in (0, 1023, 1024, 150 << 10, 5 << 40)] == ["0B", "1023B", "1.0KiB", "150KiB", "5.0TiB"]
