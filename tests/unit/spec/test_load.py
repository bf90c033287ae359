"""Reading files that a stranger wrote: bounded, never hanging, and one clear line for each way to be wrong."""

import os
import pathlib
import subprocess
import sys

import pytest

from sysvisor_runc import jsonlight
from sysvisor_runc.errors import SpecError
from sysvisor_runc.spec import load as module
from sysvisor_runc.spec.load import load, load_process, load_resources

GOOD = b'{"ociVersion": "1.3.0", "root": {"path": "rootfs"}, "process": {"cwd": "/", "args": ["sh"]}}'


def refusal(bundle: pathlib.Path, content: bytes) -> SpecError:
    (bundle / "config.json").write_bytes(content)
    with pytest.raises(SpecError) as caught:
        load(str(bundle))
    assert "\n" not in str(caught.value)
    return caught.value


def test_good(tmp_path: pathlib.Path) -> None:
    """A bundle's configuration is returned, completed."""
    (tmp_path / "config.json").write_bytes(GOOD)
    assert load(str(tmp_path))["process"]["user"] == {"uid": 0, "gid": 0}


def test_missing(tmp_path: pathlib.Path) -> None:
    """The wording for a missing file is what runc's users know; the hint names where it was looked for."""
    with pytest.raises(SpecError) as caught:
        load(str(tmp_path))
    assert str(caught.value) == "JSON specification file config.json not found"
    assert str(tmp_path) in str(caught.value.hint)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "config.json is empty"),
        (b" \n", "config.json is empty"),
        (b"{]", "config.json is not valid JSON: line 1, column 2: expecting property name enclosed in double quotes"),
        (GOOD[:50], "config.json is not valid JSON: line 1, column 51: expecting ',' delimiter"),
        (GOOD + b"x", "config.json is not valid JSON: line 1, column 93: unexpected text after the value"),
        (b'{"a": "\xff"}', "config.json is not valid JSON: line 1, column 8: invalid UTF-8: byte 0xff"),
        (b'{"a": ' * 50_000, "config.json is not valid JSON: nested too deeply"),
        (b"[" * 9_000_000, "config.json is not valid JSON: nested too deeply"),
        (b"[]", "invalid configuration: expected an object, got an array"),
        (b"null", "invalid configuration: expected an object, got null"),
        (b'"x"', 'invalid configuration: expected an object, got "x"'),
        (
            b'{"mounts": [{"x": "\\ud83d\\ude00", "destination": "/\\ud800"}]}',
            "invalid configuration: mounts[0].destination: contains half of a character: \\ud800",
        ),
        (
            b'{"annotations": {"a.b": "\\uDBFF"}}',
            'invalid configuration: annotations["a.b"]: contains half of a character: \\udbff',
        ),
        (
            b'{"custom": {"\\udc7f": 1}}',
            "invalid configuration: custom: contains half of a character: \\udc7f",
        ),
    ],
    ids=range(14),
)
def test_malformed(tmp_path: pathlib.Path, content: bytes, message: str) -> None:
    """Malformed content is told with its place."""
    assert str(refusal(tmp_path, content)) == message


def test_a_byte_that_is_no_character(tmp_path: pathlib.Path) -> None:
    """It is written as half of a surrogate pair, by ourselves too, and is the byte that Python means by it."""
    (tmp_path / "config.json").write_bytes(GOOD[:-1] + b', "mounts": [{"destination": "/\\udcff"}]}')
    assert os.fsencode(load(str(tmp_path))["mounts"][0]["destination"]) == b"/\xff"


def test_too_large(tmp_path: pathlib.Path) -> None:
    """100 MB are refused after the bound, without being read."""
    with open(tmp_path / "config.json", "wb") as file:
        file.truncate(100_000_000)
    with pytest.raises(SpecError, match="larger than 16 MiB"):
        load(str(tmp_path))


def test_exactly_the_bound(tmp_path: pathlib.Path) -> None:
    """The largest file that is allowed is read whole."""
    (tmp_path / "config.json").write_bytes(GOOD.ljust(module.LIMIT))
    load(str(tmp_path))
    refusal(tmp_path, GOOD.ljust(module.LIMIT + 1))


def test_directory(tmp_path: pathlib.Path) -> None:
    """A directory in the file's place is told as such."""
    (tmp_path / "config.json").mkdir()
    with pytest.raises(SpecError, match=r"cannot read config\.json: is a directory"):
        load(str(tmp_path))


def test_fifo_does_not_hang(tmp_path: pathlib.Path) -> None:
    """A FIFO in a bundle ends the command instead of hanging it."""
    os.mkfifo(tmp_path / "config.json")
    with pytest.raises(SpecError, match="is empty"):
        load(str(tmp_path))


def test_endless(tmp_path: pathlib.Path) -> None:
    """A link to an endless device is cut off at the bound."""
    (tmp_path / "config.json").symlink_to("/dev/zero")
    with pytest.raises(SpecError, match="larger than"):
        load(str(tmp_path))


def test_symlink_loop_and_nul(tmp_path: pathlib.Path) -> None:
    """What the kernel or the interpreter refuses about the name is an error of the configuration too."""
    (tmp_path / "config.json").symlink_to("config.json")
    with pytest.raises(SpecError, match="cannot read"):
        load(str(tmp_path))
    with pytest.raises(SpecError, match="NUL"):
        load("bad\0name")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything; to force it: run the test as another user")
def test_unreadable(tmp_path: pathlib.Path) -> None:
    """A file that may not be read is told with the kernel's reason."""
    (tmp_path / "config.json").write_bytes(GOOD)
    (tmp_path / "config.json").chmod(0)
    with pytest.raises(SpecError, match="permission denied"):
        load(str(tmp_path))


def test_deep_unknown_field_next_to_a_missing_one(tmp_path: pathlib.Path) -> None:
    """Nesting that can just be read, in a file that has to be completed, is no crash either."""
    for depth in (100, *range(800, 1000, 7)):
        nested = b"[" * depth + b"]" * depth
        (tmp_path / "config.json").write_bytes(GOOD[:-1] + b', "x": ' + nested + b"}")
        try:
            load(str(tmp_path))
        except SpecError as error:
            assert "nested too deeply" in str(error)  # noqa: PT017  # both outcomes are right


def test_process_from_a_pipe() -> None:
    """`exec --process <(…)` hands over a pipe that is written to in pieces."""
    reader, writer = os.pipe()
    try:
        os.write(writer, b'{"cwd": "/", ')
        os.write(writer, b'"args": ["true"]}')
        os.close(writer)
        assert load_process(f"/proc/self/fd/{reader}")["args"] == ["true"]
    finally:
        os.close(reader)


def test_resources_from_standard_input() -> None:
    """`update -r -` reads standard input."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from sysvisor_runc.spec.load import load_resources\n"
        "print(load_resources('-')['pids']['limit'])\n"
    )
    root = jsonlight.__file__.rpartition("/sysvisor_runc/")[0]
    text = '{"pids": {"limit": 7}}'
    result = subprocess.run([sys.executable, "-SIc", program, root], input=text, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("7\n", "")


def test_resources_from_a_file(tmp_path: pathlib.Path) -> None:
    """`update -r FILE` names the file when it is missing."""
    with pytest.raises(SpecError, match=r"limits\.json not found"):
        load_resources(str(tmp_path / "limits.json"))


def test_no_descriptor_is_left(tmp_path: pathlib.Path) -> None:
    """Neither success nor failure leaves a file open."""
    (tmp_path / "config.json").write_bytes(GOOD)
    before = os.listdir("/proc/self/fd")
    load(str(tmp_path))
    refusal(tmp_path, b"{")
    assert os.listdir("/proc/self/fd") == before
