"""A Debian with systemd as pid 1 of a system container: it boots, serves, and is switched off like a machine."""

import pathlib
import signal
from collections.abc import Iterator

import pytest

from tests.support import leaks
from tests.support.machine import Debian, Machine, unpacked
from tests.support.terminal import Terminal

pytestmark = [pytest.mark.system, pytest.mark.slow, pytest.mark.debian("systemd")]

SECRET = "s3cret"
# Runs as long as the machine does, and leaves word when it is asked to end.
MARKER = """\
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/rm -f /orderly
ExecStop=/bin/touch /orderly
[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Debian]:
    """Debian with systemd, and a unit that tells whether the machine went down in order."""
    with unpacked("systemd", tmp_path_factory) as system:
        units = system.rootfs / "etc/systemd/system"
        (units / "marker.service").write_text(MARKER)
        (units / "multi-user.target.wants/marker.service").symlink_to("/etc/systemd/system/marker.service")
        yield system


@pytest.fixture(scope="module")
def machine(debian: Debian) -> Iterator[Machine]:
    """One booted machine for the tests that only look at it."""
    with debian.boot("--set-credential", f"demo:{SECRET}") as booted:
        yield booted


def test_boots_to_running(machine: Machine) -> None:
    """The boot ends in `running`: no unit failed, not even those that ask for debugfs or kernel modules."""
    failed = machine.sh("systemctl list-units --failed --plain --no-legend")
    assert (machine.wait_booted(), failed) == ("running", "")
    assert machine.sh("systemctl list-jobs --no-legend") in ("", "No jobs running.")


def test_knows_what_it_is(machine: Machine) -> None:
    """systemd sees a container with users of its own, and leaves the devices alone."""
    assert machine.sh("systemd-detect-virt") == "container-other"
    machine.exec("systemd-detect-virt", "--private-users")
    assert machine.sh("systemctl is-active systemd-udevd || true") == "inactive"
    assert machine.sh("hostnamectl chassis") == "container"


def test_container_interface(machine: Machine) -> None:
    """pid 1 finds the variables and files of the container interface; the machine id comes from container_uuid."""
    variables = dict(line.split("=", 1) for line in machine.sh("tr '\\0' '\\n' </proc/1/environ").splitlines())
    assert variables["container"] == "sysvisor-runc"
    uuid = variables["container_uuid"]
    assert machine.sh("cat /etc/machine-id") == uuid.replace("-", "")
    assert machine.sh("cat /run/host/container-uuid /run/host/container-manager").split() == [uuid, "sysvisor-runc"]
    assert machine.sh("cat /run/host/os-release") == pathlib.Path("/etc/os-release").read_text().strip()
    assert machine.sh("stat -c '%F %a' /run/host/inaccessible/reg") == "regular empty file 0"
    machine.exec("/bin/sh", "-c", "! touch /run/host/x 2>/dev/null")


def test_credentials(machine: Machine) -> None:
    """A credential from the command line reaches systemd and, through it, a service; nobody else may read it."""
    assert machine.sh("systemd-creds --system cat demo") == SECRET
    service = "systemd-run --quiet --wait --pipe -p LoadCredential=demo sh -c 'cat $CREDENTIALS_DIRECTORY/demo'"
    assert machine.sh(service) == SECRET
    assert (
        "Permission denied"
        in machine.exec("cat", "/run/host/credentials/demo", flags=("--user", "1000:1000"), check=False).stderr
    )


def test_journal(machine: Machine) -> None:
    """What a service prints is in the journal, under its unit."""
    machine.sh("systemd-run --quiet --wait --unit says.service echo it-was-said")
    machine.wait_for("journalctl --sync; journalctl -u says.service -o cat | grep -qx it-was-said", "the message")


def test_timer(machine: Machine) -> None:
    """A timer fires."""
    machine.sh("systemd-run --quiet --on-active=100ms --timer-property=AccuracySec=1ms touch /run/fired")
    machine.wait_for("test -e /run/fired", "the timer")


def test_socket_activation(machine: Machine) -> None:
    """A connection starts the service behind a socket unit, which answers it."""
    units = {
        "greet.socket": "[Socket]\nListenStream=127.0.0.1:7777\nAccept=yes\n",
        "greet@.service": "[Service]\nStandardInput=socket\nExecStart=/bin/sh -c 'read name; echo hello $$name'\n",
    }
    for name, text in units.items():
        (machine.bundle.rootfs / "etc/systemd/system" / name).write_text(text)
    machine.sh("systemctl daemon-reload && systemctl start greet.socket")
    assert "greet@" not in machine.sh("systemctl list-units --plain --no-legend 'greet@*'")
    client = "exec 3<>/dev/tcp/127.0.0.1/7777; echo world >&3; read -r answer <&3; echo $answer"
    assert machine.sh(client) == "hello world"
    assert machine.sh("systemctl show -P NAccepted greet.socket") == "1"


def test_slices_and_limits(machine: Machine) -> None:
    """systemd limits a service in the container's own cgroups, and no process is in a cgroup of the host's."""
    machine.sh("systemd-run --quiet --unit limited.service -p TasksMax=7 -p MemoryMax=50M sleep 1000")
    control = machine.sh("systemctl show -P ControlGroup limited.service")
    assert control == "/system.slice/limited.service"
    found = machine.sh(f"cat /sys/fs/cgroup/pids{control}/pids.max 2>/dev/null || cat /sys/fs/cgroup{control}/pids.max")
    assert found == "7"
    for pid in machine.processes():
        for line in pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines():
            assert f"/{machine.id}" in line, line


def test_mounts_are_shared_inside_only(machine: Machine) -> None:
    """A mount reaches the machine's own mount namespaces, as on any booted Linux, and never the host."""
    assert machine.sh("findmnt --noheadings --output PROPAGATION /") == "shared"
    machine.sh("systemd-run --quiet --unit apart.service -p PrivateMounts=yes sleep 1000 && mount -t tmpfs t /mnt")
    assert machine.sh("nsenter -t $(systemctl show -P MainPID apart) -m findmnt -no FSTYPE /mnt") == "tmpfs"
    assert leaks.mounts(machine.runtime.directory) == []
    machine.sh("umount /mnt")


def test_no_id_of_the_host(machine: Machine) -> None:
    """Every process in there is an ordinary nobody on the host."""
    assert machine.foreign_ids() == []


def test_users_and_sessions(machine: Machine) -> None:
    """An ordinary user gets a systemd of their own, with a cgroup delegated to it."""
    machine.sh("useradd --create-home someone && loginctl enable-linger someone")
    machine.wait_for("systemctl is-active --quiet user@$(id -u someone).service", "the user's manager")


def test_exec_joins(machine: Machine) -> None:
    """An exec has the machine's namespaces, and every capability that the kernel knows."""
    for kind in ("cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"):
        assert machine.sh(f"readlink /proc/self/ns/{kind}") == machine.sh(f"readlink /proc/1/ns/{kind}")
    full = (1 << int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1) - 1
    assert int(machine.sh("grep CapEff /proc/self/status").split()[1], 16) == full


@pytest.mark.parametrize(("words", "code"), [("poweroff", 0), ("halt", 0), ("reboot", 133), ("exit 7", 7)])
def test_ends_from_inside(debian: Debian, words: str, code: int) -> None:
    """systemctl ends the container in order, and `run` tells how: 0 switched off, 133 wants to be started again."""
    with debian.boot(detach=False) as machine:
        machine.exec("systemctl", *words.split(), check=False)
        assert machine.running is not None
        result = machine.running.wait()
        assert (result.returncode, result.stderr) == (code, "")
        assert machine.id not in machine.runtime.ids()
    assert (debian.rootfs / "orderly").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_with_run(debian: Debian, number: int) -> None:
    """Who terminates or interrupts `run` switches the machine off in order."""
    with debian.boot(detach=False) as machine:
        assert machine.running is not None
        machine.running.process.send_signal(number)
        assert machine.running.wait().returncode == 0
    assert (debian.rootfs / "orderly").exists()


@pytest.mark.parametrize("words", [(), ("SIGRTMIN+3",)])
def test_stop_signal(debian: Debian, words: tuple[str, ...]) -> None:
    """`kill` sends the stop signal unless told otherwise: an orderly shutdown; then there is nothing but to delete."""
    with debian.boot() as machine:
        machine.runtime("kill", machine.id, *words)
        machine.runtime.wait_status(machine.id, "stopped", 30)
        machine.runtime("delete", machine.id)
    assert (debian.rootfs / "orderly").exists()


def test_kill_and_delete(debian: Debian) -> None:
    """SIGKILL ends everything at once, in no order."""
    with debian.boot() as machine:
        machine.runtime("kill", machine.id, "KILL")
        machine.runtime.wait_status(machine.id, "stopped")
        machine.runtime("delete", machine.id)
    assert not (debian.rootfs / "orderly").exists()


def test_survives_pause(debian: Debian) -> None:
    """A machine that was suspended goes on, and can be deleted while it is suspended."""
    with debian.boot() as machine:
        machine.runtime("pause", machine.id)
        machine.runtime("resume", machine.id)
        assert machine.wait_booted() == "running"
        machine.runtime("pause", machine.id)


def test_same_machine_at_every_boot(debian: Debian) -> None:
    """The machine id depends on the container's id, not on the boot; a second container is another machine."""
    empty = debian.rootfs / "etc/machine-id"
    found = []
    for name in ("one", "one", "two"):
        empty.write_text("")
        container = f"{debian.runtime.token}-{name}"
        debian.runtime("run", "--detach", "--bundle", debian.bundle().path, container)
        machine = Machine(debian.runtime, debian.bundle(), None, container)
        machine.wait_booted()
        found.append(machine.sh("cat /etc/machine-id"))
        debian.runtime("delete", "--force", container)
    empty.write_text("")
    assert found[0] == found[1] != found[2]


def test_console(debian: Debian) -> None:
    """On a terminal the boot shows on the console, root logs in there, and the shell's poweroff ends `run`."""
    debian.bundle("/sbin/init", "--show-status=true", terminal=True)
    name = debian.runtime.id()
    argv = debian.runtime.argv("run", "--bundle", debian.directory / "bundle", name)
    terminal = Terminal(debian.directory, argv, (40, 120))
    try:
        terminal.expect("Welcome to .*Debian")
        terminal.expect("login: ")
        terminal.line("root")
        terminal.prompt()
        terminal.line("tty; stty size; echo shell-$((6*7))")
        terminal.expect("/dev/console\r\n40 120\r\nshell-42")
        terminal.line("systemctl poweroff")
        assert terminal.wait() == 0
    finally:
        debian.runtime("delete", "--force", name)
        terminal.close()
