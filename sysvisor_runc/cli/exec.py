"""`exec`: run another process in a container."""

from __future__ import annotations

import os

from sysvisor_runc.cli.publish import publish
from sysvisor_runc.errors import LaunchError, SpecError, UsageError
from sysvisor_runc.kernel import capability
from sysvisor_runc.kernel.prctl import capget
from sysvisor_runc.launch.interrupt import hold_back
from sysvisor_runc.launch.join import Joining, join
from sysvisor_runc.launch.pidfile import write_pid_file
from sysvisor_runc.plan.process import cpu_list, memory_policy, process_plan, rlimits
from sysvisor_runc.state import lifecycle, process
from sysvisor_runc.state.observe import observe
from sysvisor_runc.state.store import Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sysvisor_runc.child.plan import ProcessPlan
    from sysvisor_runc.cli.parse import Options
    from sysvisor_runc.launch.join import Joined
    from sysvisor_runc.spec.types import Capabilities, Process, User
    from sysvisor_runc.state.record import Record


def run(options: Options) -> int:
    """Run the process; the exit code is its own, 255 where it could not be started."""
    with Store(options.globals.root).open(options.args[0]) as entry:
        with entry.lock(exclusive=False):
            record = entry.load()
            status = observe(entry, record)
        if not (status == "paused" and options.flag("ignore-paused")):
            lifecycle.require("exec", status, record["id"])
        init = process.open_init(record)
        if "overlayWork" in record:
            from sysvisor_runc.launch.coherence import refresh_both

            refresh_both(record)
    wanted = _process(options, record)
    # Until the process is there to get them; then they are forwarded.
    hold_back()
    joining = _joining(options, record, wanted)
    joined = join(record, init, wanted, _plan(options, record, wanted, joining), joining)
    os.close(init)
    # The program's name only: in arguments there are secrets.
    publish(options, "exec", {"pid": joined.child.pid, "program": wanted["args"][0]})
    return _follow(options, joined)


def _follow(options: Options, joined: Joined) -> int:
    try:
        _announce(options, joined)
    except BaseException:
        joined.child.kill()
        raise
    if options.flag("detach"):
        return 0
    from sysvisor_runc.launch import foreground

    signal_fd = foreground.forwarded_signals()
    if joined.console >= 0:
        from sysvisor_runc.aio.foreground import relay

        return relay(joined.child, joined.console, signal_fd)
    return foreground.wait_forwarding(joined.child, signal_fd)


def _announce(options: Options, joined: Joined) -> None:
    """Tell who asked for it which process it is."""
    if options.text("pidfd-socket"):
        from sysvisor_runc.launch.handover import send_descriptor

        send_descriptor(options.text("pidfd-socket") or "", joined.child.pidfd, b"pidfd", "--pidfd-socket")
    if options.text("pid-file"):
        write_pid_file(options.text("pid-file") or "", joined.child.pid)


def _process(options: Options, record: Record) -> Process:
    """The process object: from --process, or the container's own with what the flags say."""
    path = options.text("process")
    if path:
        from sysvisor_runc.spec.load import load_process

        return load_process(path)
    if len(options.args) < 2:
        raise UsageError("exec args cannot be empty", hint="name the command after the container id, or use --process")
    wanted: Process = {**record["spec"]["process"]}
    wanted["args"] = options.args[1:]
    wanted["env"] = [*(wanted.get("env") or ()), *options.texts("env")]
    wanted["terminal"] = options.flag("tty")
    wanted.pop("consoleSize", None)
    cwd = options.text("cwd")
    if cwd:
        if not cwd.startswith("/"):
            raise SpecError("process.cwd", f"Cwd must be an absolute path, not {cwd!r}")
        wanted["cwd"] = cwd
    if options.text("apparmor"):
        wanted["apparmorProfile"] = options.text("apparmor") or ""
    if options.text("process-label"):
        wanted["selinuxLabel"] = options.text("process-label") or ""
    if options.given("no-new-privs"):
        wanted["noNewPrivileges"] = options.flag("no-new-privs")
    _set_user(wanted, options, record)
    _add_capabilities(wanted, options.texts("cap"))
    return wanted


def _set_user(wanted: Process, options: Options, record: Record) -> None:
    user: User = {**wanted["user"]}
    given = options.text("user")
    if given:
        from sysvisor_runc.launch.user import resolve_user

        uid, gid, groups = resolve_user(given, record)
        user["uid"] = uid
        if gid is not None:
            user["gid"] = gid
        if groups:
            user["additionalGids"] = groups
    extra = options.numbers("additional-gids")
    if any(gid < 0 for gid in extra):
        raise UsageError(f"additional-gids must be a positive number {min(extra)}")
    if extra:
        user["additionalGids"] = [*(user.get("additionalGids") or ()), *extra]
    wanted["user"] = user


def _add_capabilities(wanted: Process, names: list[str]) -> None:
    """Ambient ones come along only where the spec has inheritable ones, which they need (as runc does)."""
    if not names:
        return
    sets: Capabilities = {**(wanted.get("capabilities") or {})}
    sets["bounding"] = [*(sets.get("bounding") or ()), *names]
    sets["effective"] = [*(sets.get("effective") or ()), *names]
    sets["permitted"] = [*(sets.get("permitted") or ()), *names]
    if sets.get("inheritable"):
        sets["ambient"] = [*(sets.get("ambient") or ()), *names]
    wanted["capabilities"] = sets


def _plan(options: Options, record: Record, wanted: Process, joining: Joining) -> ProcessPlan:
    linux = record["spec"].get("linux") or {}
    if record["syscont"]:
        from sysvisor_runc.launch.syscont import convert_joining

        convert_joining(wanted, record)
    in_userns = any(n["type"] == "user" for n in linux.get("namespaces") or ())
    _, held, _ = capget()
    plan = process_plan(wanted, held=(1 << capability.last_cap() + 1) - 1 if in_userns else held)
    plan.preserve_fds = options.number("preserve-fds") or 0
    plan.rlimits = rlimits(wanted)
    profile = linux.get("seccomp")
    if profile and profile.get("defaultAction"):
        from sysvisor_runc.plan import seccomp

        plan.seccomp = joining.seccomp = seccomp.compile(profile, f"{options.globals.root}/@seccomp")
    if "personality" in linux:
        from sysvisor_runc.plan.process import persona

        plan.personality = persona(linux["personality"])
    if linux.get("memoryPolicy"):
        plan.memory_policy = memory_policy(linux["memoryPolicy"])
    final = (wanted.get("execCPUAffinity") or {}).get("final")
    if final:
        plan.affinity = cpu_list(final, "process.execCPUAffinity.final")
    if not record["flags"].get("noNewKeyring"):
        plan.keyring = f"_ses.{record['id']}"
    return plan


def _joining(options: Options, record: Record, wanted: Process) -> Joining:
    joining = Joining()
    joining.detached = options.flag("detach")
    joining.console_socket = options.text("console-socket") or ""
    terminal = wanted.get("terminal", False)
    if terminal and joining.detached and not joining.console_socket:
        raise LaunchError("cannot allocate tty if sysvisor-runc will detach without setting console socket")
    if joining.console_socket and not (terminal and joining.detached):
        raise LaunchError("cannot use console socket if sysvisor-runc will not detach or allocate tty")
    if terminal and not joining.detached:
        from sysvisor_runc.launch.terminal import check_caller_terminal

        check_caller_terminal()
    joining.cgroups = options.texts("cgroup")
    initial = (wanted.get("execCPUAffinity") or {}).get("initial")
    if initial:
        joining.affinity = cpu_list(initial, "process.execCPUAffinity.initial")
    return joining
