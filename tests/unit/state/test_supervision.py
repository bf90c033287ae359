"""What is stored of a supervised container, and restart policies as people write them."""

import pathlib

import pytest

from sysvisor_runc.errors import UsageError
from sysvisor_runc.state import supervision
from sysvisor_runc.state.store import Store


@pytest.mark.parametrize(
    ("text", "policy", "retries"),
    [
        ("no", "no", 0),
        ("on-failure", "on-failure", 0),
        ("on-failure:5", "on-failure", 5),
        ("always", "always", 0),
        ("unless-stopped", "unless-stopped", 0),
    ],
)
def test_policies_are_read(text: str, policy: str, retries: int) -> None:
    """Policies are Docker's, with a delay of 100 ms unless another is given."""
    assert supervision.parse_policy(text, None, "x") == {"policy": policy, "retries": retries, "delay": 0.1}
    assert supervision.parse_policy(text, 2.5, "x")["delay"] == 2.5


@pytest.mark.parametrize(
    "text",
    ["", "yes", "Always", "always:3", "no:0", "on-failure:", "on-failure:-1", "on-failure:x", "on-failure:٣",
     "on-failure:99999999999", "on-failure:1:2"],
)  # fmt: skip
def test_what_is_no_policy_is_refused(text: str) -> None:
    """Anything else is a mistake that names where it stands."""
    with pytest.raises(UsageError, match="--restart"):
        supervision.parse_policy(text, None, "--restart")


def test_it_is_stored_beside_the_record(tmp_path: pathlib.Path) -> None:
    """Whole or not at all, and damaged means none."""
    entry = Store(str(tmp_path / "root")).create("web")
    assert not supervision.exists(entry)
    assert supervision.load(entry) is None
    supervision.ask_stop(entry)
    assert not supervision.stop_asked(entry), "nobody supervises it"
    known = supervision.new_supervision(supervision.parse_policy("always", None, "x"))
    supervision.save(entry, known)
    assert supervision.exists(entry)
    assert supervision.load(entry) == known
    supervision.ask_stop(entry)
    assert supervision.stop_asked(entry)
    supervision.forget_stop(entry)
    assert not supervision.stop_asked(entry)
    for damage in ("", "[]", '{"restart": 5}', "nonsense"):
        (tmp_path / "root/web" / supervision.FILE).write_text(damage)
        assert supervision.load(entry) is None
    entry.remove()
    entry.close()
