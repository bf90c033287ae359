"""Records: what a new one holds, and how moments are written."""

import datetime
import os
import time

import pytest

from sysvisor_runc import jsonlight
from sysvisor_runc.state.record import VERSION, new_record, rfc3339nano

SPEC = {"ociVersion": "1.3.0", "annotations": {"b": "2", "a": "1"}}


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "1970-01-01T00:00:00Z"),
        (1_000_000_000 - 1, "1970-01-01T00:00:00.999999999Z"),
        (1_700_000_000_100_000_000, "2023-11-14T22:13:20.1Z"),
        (1_709_164_800_000_000_010, "2024-02-29T00:00:00.00000001Z"),
    ],
)
def test_moments_are_written_as_go_does(nanoseconds: int, text: str) -> None:
    """UTC, a fraction only if there is one, and no trailing zeros in it."""
    assert rfc3339nano(nanoseconds) == text


def test_a_new_record_is_of_now_and_of_us() -> None:
    """Time, owner and version are filled in; there is no init yet."""
    before = time.time()
    record = new_record("c", bundle="/b", rootfs="/r", spec=SPEC, flags={}, syscont=True)  # type: ignore[arg-type]
    created = datetime.datetime.fromisoformat(record["created"][:26].rstrip("Z") + "+00:00").timestamp()
    assert before - 1 < created < time.time() + 1
    assert (record["owner"], record["version"], record["status"]) == (os.geteuid(), VERSION, "creating")
    assert (record["initPid"], record["initStart"]) == (0, 0)


def test_a_record_survives_json() -> None:
    """What is stored is read back as it was, file names that are not UTF-8 included."""
    record = new_record("c", bundle="/b\udcff", rootfs="/ü", spec=SPEC, flags={}, syscont=False)  # type: ignore[arg-type]
    assert jsonlight.loads(jsonlight.dumps(record)) == record


def test_annotations_are_a_copy() -> None:
    """Changing the record's annotations does not change the configuration that is stored beside them."""
    record = new_record("c", bundle="/b", rootfs="/r", spec=SPEC, flags={}, syscont=True)  # type: ignore[arg-type]
    record["annotations"]["new"] = "x"
    assert "new" not in record["spec"]["annotations"]
