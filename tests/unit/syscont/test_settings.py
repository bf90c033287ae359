"""Settings: how they are spelled, which one wins, which are refused."""

import pytest

from sysvisor_runc.errors import SpecError
from sysvisor_runc.syscont.settings import is_disabled, read_settings
from tests.unit.syscont import sample


def test_defaults() -> None:
    """A configuration that says nothing asks for a system container."""
    assert not is_disabled(sample.spec())


@pytest.mark.parametrize("value", ["FALSE", "false"])
def test_switched_off(value: str) -> None:
    """An annotation or a variable of the container suffices."""
    assert is_disabled(sample.spec(annotations={"org.sysvisor.syscont-mode": value}))
    assert is_disabled(sample.spec(process={"env": [f"SYSVISOR_SYSCONT_MODE={value}"]}))


def test_the_nearer_wins() -> None:
    """Annotation before the container's variable."""
    on = sample.spec(process={"env": ["SYSVISOR_SYSCONT_MODE=TRUE"]})
    assert not is_disabled(on)
    off = sample.spec(annotations={"org.sysvisor.syscont-mode": "false"}, process={"env": on["process"]["env"]})
    assert is_disabled(off)


def test_all_of_them() -> None:
    """Each setting by its annotation, beside those of other parts."""
    settings = read_settings(
        sample.spec(
            annotations={
                "org.sysvisor.honor-caps": "true",
                "org.sysvisor.chown-rootfs": "true",
                "org.sysvisor.skip-uid-shift": "/data/,/srv",
                "org.sysvisor.restart": "always",
                "org.other": "x",
            }
        )
    )
    assert settings.honor_caps
    assert settings.chown_rootfs
    assert settings.skip_uid_shift == {"/data", "/srv"}


@pytest.mark.parametrize(
    "entry",
    [
        "SYSVISOR_HONOR_CAPS=yes",
        "SYSVISOR_HONOR_CAPS=",
        "SYSVISOR_SKIP_UID_SHIFT=data",
        "SYSVISOR_SKIP_UID_SHIFT=/a, /b",
        "SYSVISOR_TYPO=TRUE",
    ],
)
def test_refused(entry: str) -> None:
    """A typo is an error at its place, never a silent default."""
    with pytest.raises(SpecError) as caught:
        read_settings(sample.spec(process={"env": ["A=1", entry]}))
    assert caught.value.path == "process.env[1]"


def test_reserved() -> None:
    """What sysvisor-fs will understand is accepted already."""
    read_settings(sample.spec(process={"env": ["SYSVISOR_IGNORE_SYSFS_CHOWN=TRUE"]}))
