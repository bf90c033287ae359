"""maskedPaths and readonlyPaths."""

import pytest

from tests.support.bundle import Bundle
from tests.support.inside import mounted, observe, start, user_namespace
from tests.support.runtime import Runtime


@pytest.mark.parametrize("userns", [False, True])
def test_masked_paths(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """A file reads as empty and takes no data, a directory is empty and read-only; what is absent is fine."""
    if userns:
        user_namespace(bundle)
    (bundle.rootfs / "secret").mkdir()
    (bundle.rootfs / "secret/file").write_text("text")
    (bundle.rootfs / "file").write_text("text")
    (bundle.rootfs / "link").symlink_to("/file")
    bundle.linux["maskedPaths"] = ["/secret", "/file", "/proc/version", "/sys/firmware", "/not/there", "/file/below"]
    seen = observe(
        plain_runtime,
        bundle,
        directory="ls -a /secret | wc -l; touch /secret/x; true",
        file="cat /file /link | wc -c",
        version="head -c 1 /proc/version | wc -c",
        mounts="cat /proc/mounts",
    )
    assert seen["directory"].splitlines()[0] == "2"
    assert "Read-only" in seen["directory"]
    assert (seen["file"], seen["version"]) == ("0", "0")
    assert (bundle.rootfs / "secret/file").read_text() == "text"


def test_a_masked_path_is_followed_inside_only(plain_runtime: Runtime, bundle: Bundle) -> None:
    """A link in the rootfs masks what it leads to in there, and never anything of the host's."""
    outside = bundle.path / "outside"
    outside.write_text("host")
    (bundle.rootfs / "masked").symlink_to(outside)
    bundle.linux["maskedPaths"] = ["/masked"]
    bundle.linux["readonlyPaths"] = ["/masked"]
    _, pid = start(plain_runtime, bundle)
    assert not any("outside" in path for path in mounted(pid))
    assert outside.read_text() == "host"


@pytest.mark.parametrize("userns", [False, True])
def test_read_only_paths(plain_runtime: Runtime, bundle: Bundle, userns: bool) -> None:
    """They and what is mounted below can be read but not written; attributes that they had stay."""
    if userns:
        user_namespace(bundle)
    (bundle.rootfs / "kept").mkdir()
    (bundle.rootfs / "kept").chmod(0o777)
    (bundle.rootfs / "kept/file").write_text("text")
    (bundle.rootfs / "kept/file").chmod(0o666)
    bundle.config["mounts"].append(
        {"destination": "/tmp", "type": "tmpfs", "source": "t", "options": ["nosuid", "nodev", "noexec", "mode=777"]}
    )
    bundle.linux["readonlyPaths"] = ["/kept", "/proc/sys", "/tmp", "/not/there"]
    name, pid = start(plain_runtime, bundle)
    assert mounted(pid)["/tmp"]["options"] >= {"ro", "nosuid", "nodev", "noexec"}
    for path in ("/kept/file", "/kept/new", "/proc/sys/kernel/hostname", "/tmp/x"):
        done = plain_runtime("exec", name, "/bin/sh", "-c", f"echo x >{path}", check=False)
        assert "Read-only" in done.stderr, (path, done)
    assert plain_runtime("exec", name, "/bin/cat", "/kept/file").stdout == "text"


def test_without_a_mount_namespace_they_are_refused(plain_runtime: Runtime, bundle: Bundle) -> None:
    """They would change the host."""
    bundle.linux["namespaces"] = [{"type": "pid"}]
    bundle.config.pop("hostname", None)
    bundle.linux["maskedPaths"] = ["/proc/kcore"]
    bundle.save()
    error = plain_runtime.fails("run", "--bundle", bundle.path, plain_runtime.id()).stderr
    assert "linux.maskedPaths" in error and "private MNT namespace" in error
