"""`spec`: a file to start from, never at the expense of another."""

import json
import pathlib

import pytest

from sysvisor_runc.cli.main import run
from sysvisor_runc.cli.spec import parse_id_map
from sysvisor_runc.errors import UsageError


def written(directory: pathlib.Path, *argv: str) -> dict[str, object]:
    assert run([*argv, "--bundle", str(directory)]) == 0
    spec: dict[str, object] = json.loads((directory / "config.json").read_text())
    return spec


def test_it_writes_into_the_bundle(tmp_path: pathlib.Path) -> None:
    """--bundle names the directory; the file is readable JSON, indented, with a final newline."""
    spec = written(tmp_path, "spec")
    assert spec["ociVersion"] == "1.3.0"
    assert (tmp_path / "config.json").read_text().endswith("\n}\n")


def test_it_writes_into_the_current_directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --bundle, that is where the container will be run from."""
    monkeypatch.chdir(tmp_path)
    assert run(["spec"]) == 0
    assert (tmp_path / "config.json").exists()


def test_it_never_overwrites(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A config.json that is there, even as a dangling symlink, stays as it is."""
    (tmp_path / "config.json").symlink_to(tmp_path / "elsewhere")
    assert run(["spec", "-b", str(tmp_path)]) == 1
    assert capfd.readouterr().err == f"sysvisor-runc: file {tmp_path}/config.json exists (remove it first)\n"
    assert not (tmp_path / "elsewhere").exists()


def test_the_bundle_must_exist(tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The directory is not made: a typing mistake should not leave one behind."""
    assert run(["spec", "-b", str(tmp_path / "none")]) == 1
    assert "no such file or directory" in capfd.readouterr().err


def test_variants_differ(tmp_path: pathlib.Path) -> None:
    """A system container, a conforming one and a rootless one each start from their own file."""
    texts = []
    for number, argv in enumerate((["spec"], ["--no-syscont", "spec"], ["spec", "--rootless"])):
        directory = tmp_path / str(number)
        directory.mkdir()
        texts.append(json.dumps(written(directory, *argv)))
    assert len(set(texts)) == 3


def test_id_map_becomes_the_mappings(tmp_path: pathlib.Path) -> None:
    """--id-map 'UID GID SIZE' is written as one range of each kind."""
    linux = written(tmp_path, "spec", "--id-map", "200000 300000 65536")["linux"]
    assert isinstance(linux, dict)
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 200000, "size": 65536}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 300000, "size": 65536}]


def test_rootless_excludes_a_map(capfd: pytest.CaptureFixture[str]) -> None:
    """An ordinary user has no ranges to name."""
    assert run(["spec", "--rootless", "--id-map", "1 1 1"]) == 1
    assert "cannot be combined" in capfd.readouterr().err


@pytest.mark.parametrize(("text", "wanted"), [("0 0 1", (0, 0, 1)), (" 1\t2  3 ", (1, 2, 3)), ("0 0 4294967295",
                                              (0, 0, 4294967295))])  # fmt: skip
def test_id_maps_that_can_be(text: str, wanted: tuple[int, int, int]) -> None:
    """Three numbers, separated by any white space."""
    assert parse_id_map(text) == wanted


@pytest.mark.parametrize(
    "text", ["", "1 2", "1 2 3 4", "a 2 3", "-1 2 3", "1 2 0", "1 0 4294967295", "1 2 99999999999"]
)
def test_id_maps_that_cannot_be(text: str) -> None:
    """Ranges are not empty and end before the id that means none."""
    with pytest.raises(UsageError, match="--id-map"):
        parse_id_map(text)
