"""Annotations: kept, shown, and the one that switches the conversion off."""

from tests.support.bundle import Bundle
from tests.support.inside import namespace, start
from tests.support.runtime import Runtime


def test_they_are_shown(plain_runtime: Runtime, bundle: Bundle) -> None:
    """By `state`, unchanged; keys and values may be anything that JSON can hold."""
    wanted = {"com.example/key": "value", "odd \u00fc\n": "\u0000 \U0001f600", "empty": ""}
    bundle.config["annotations"] = wanted
    name, _ = start(plain_runtime, bundle)
    assert plain_runtime.state(name)["annotations"] == wanted


def test_the_mode_is_an_annotation(runtime: Runtime, bundle: Bundle) -> None:
    """It makes a plain container without the flag, as does a variable: no user namespace, neither for exec."""
    bundle.config["annotations"] = {"org.sysvisor.syscont-mode": "false"}
    name, pid = start(runtime, bundle)
    assert namespace(pid, "user") == namespace("self", "user")
    assert runtime("exec", name, "/bin/readlink", "/proc/self/ns/user").stdout.strip() == namespace("self", "user")
    bundle.config["annotations"] = {}
    bundle.process["env"].append("SYSVISOR_SYSCONT_MODE=FALSE")
    _, pid = start(runtime, bundle)
    assert namespace(pid, "user") == namespace("self", "user")
    bundle.process["env"].pop()
    _, pid = start(runtime, bundle)
    assert namespace(pid, "user") != namespace("self", "user")


def test_nobody_may_ask_for_a_plain_container(runtime: Runtime, bundle: Bundle) -> None:
    """Where the runtime makes system containers only, a variable is refused by name, and so is an annotation."""
    bundle.process["env"].append("SYSVISOR_SYSCONT_MODE=FALSE")
    last = f"process.env[{len(bundle.process['env']) - 1}]"
    runtime.flags += ("--only-syscont",)
    assert last in runtime.fails("run", "--bundle", bundle.save().path, runtime.id()).stderr
    bundle.config["annotations"] = {"org.sysvisor.syscont-mode": "false"}
    error = runtime.fails("create", "--bundle", bundle.save().path, runtime.id()).stderr
    assert "annotations['org.sysvisor.syscont-mode']" in error and "--only-syscont" in error
    bundle.config["annotations"] = {"org.sysvisor.syscont-mode": "true"}
    _, pid = start(runtime, bundle)
    assert namespace(pid, "user") != namespace("self", "user")
