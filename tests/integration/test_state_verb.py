"""`state`: what it shows of a container in every status."""

import json
import pathlib
import subprocess

import jsonschema
import pytest
import referencing
from referencing.jsonschema import DRAFT4

from sysvisor_runc.state.process import start_time
from sysvisor_runc.state.store import Store
from tests.support.handmade import container
from tests.support.runtime import Runtime

SCHEMAS = pathlib.Path(__file__).resolve().parents[1] / "data/oci-schema"


def test_the_output_is_that_of_runc(runtime: Runtime) -> None:
    """Keys in order, indented by two blanks, no newline at the end, no owner."""
    with container(runtime) as one:
        output = runtime("state", one.id).stdout
    assert output == (
        f'{{\n  "ociVersion": "1.3.0",\n  "id": "{one.id}",\n  "pid": {one.init.pid},\n  "status": "running",\n'
        f'  "bundle": "{runtime.directory}",\n  "rootfs": "{runtime.directory}/rootfs",\n'
        f'  "created": "{one.record["created"]}",\n  "owner": ""\n}}'
    )


def test_the_output_fits_the_specification(runtime: Runtime) -> None:
    """The runtime specification's schema of the state accepts it, annotations included."""
    if not (SCHEMAS / "state-schema.json").exists():
        pytest.skip("no schemas here; to force it: put the runtime specification's into tests/data/oci-schema")
    resources = [(path.name, DRAFT4.create_resource(json.loads(path.read_text()))) for path in SCHEMAS.glob("*.json")]
    registry = referencing.Registry().with_resources(resources)
    schema = json.loads((SCHEMAS / "state-schema.json").read_text())
    with container(runtime) as one:
        one.save(annotations={"a": "b"})
        jsonschema.Draft4Validator(schema, registry=registry).validate(runtime.state(one.id))


def test_a_stopped_container_has_no_pid(runtime: Runtime) -> None:
    """Not even while its init is a zombie."""
    with container(runtime) as one:
        one.init.kill()
        assert runtime.wait_status(one.id, "stopped")["pid"] == 0
        one.init.wait(10)
        assert runtime.state(one.id)["status"] == "stopped"


def test_another_process_with_the_pid_is_not_the_container(runtime: Runtime) -> None:
    """A recorded pid that belongs to somebody else by now means stopped."""
    with container(runtime) as one, subprocess.Popen(["/bin/sleep", "1000"]) as other:
        one.save(initPid=other.pid, initStart=start_time(other.pid) - 1)
        assert runtime.state(one.id)["status"] == "stopped"
        other.kill()


def test_creating_is_told_while_a_command_works_on_it(runtime: Runtime) -> None:
    """And stopped once that was killed."""
    with container(runtime) as one:
        one.save(status="creating", initPid=0)
        with one.entry.lock():
            assert runtime.state(one.id)["status"] == "creating"
        assert runtime.state(one.id)["status"] == "stopped"


def test_unknown_containers(runtime: Runtime) -> None:
    """One line, with what to do."""
    assert "container does not exist" in runtime.fails("state", runtime.id()).stderr
    assert "invalid container ID format" in runtime.fails("state", "../etc").stderr


def test_a_container_without_a_record(runtime: Runtime) -> None:
    """It is no traceback and no invention, and the way out is told."""
    name = runtime.id()
    entry = Store(str(runtime.root)).create(name)
    entry.unlock()
    assert "delete --force" in runtime.fails("state", name).stderr
    entry.remove()
