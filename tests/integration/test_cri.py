"""containerd and CRI-O drive our runtime as a kubelet asks them to: pods through the Container Runtime Interface."""

import pathlib
from collections.abc import Iterator

import pytest

from sysvisor_runc.kernel import capability
from sysvisor_runc.kernel.prctl import capget
from tests.support.clients import Client
from tests.support.containerd import IMAGE
from tests.support.cri import SERVE, Cri, Pod, Refused
from tests.support.engines import engine
from tests.support.inside import FIRST_ID, ID_COUNT
from tests.support.runtime import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.debian("criu"), pytest.mark.debian("current")]


@pytest.fixture(scope="module", params=["", "2", "crio"], ids=["installed", "2", "crio"])
def cri(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cri]:
    with engine(request.param, tmp_path_factory.mktemp("cri")) as made:
        yield made


@pytest.fixture(scope="module", params=["1.7", "2", "crio"])
def newer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cri]:
    """An engine that knows of user namespaces."""
    with engine(request.param, tmp_path_factory.mktemp("newer")) as made:
        yield made


@pytest.fixture(params=["plain", "syscont"])
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def is_crio(cri: Cri) -> bool:
    return bool(cri("Version")["runtime_name"] == "cri-o")


def memory_limit(client: Client, container: str) -> str:
    """What the container's cgroup says, on either version; CRI-O puts its name before the container's."""
    for top, file in (("memory/", "memory.limit_in_bytes"), ("", "memory.max")):
        for name in (container, f"crio-{container}"):
            path = pathlib.Path(f"/sys/fs/cgroup/{top}{client.token}/{name}/{file}")
            if path.exists():
                return path.read_text().strip()
    raise AssertionError(f"no memory cgroup of {container}")


def test_the_engine_is_ready(cri: Cri) -> None:
    """With what `install` wrote the CRI comes up without a complaint, and its handler is known."""
    conditions = {each["type"]: each.get("status") for each in cri("Status")["status"]["conditions"]}
    assert {"RuntimeReady", "NetworkReady"} <= conditions.keys()
    assert set(conditions.values()) == {True}
    with pytest.raises(Refused, match=r"no runtime for .other. is configured|failed to find runtime handler other"):
        Pod(cri, "other")


def test_life_of_a_pod(cri: Cri, mode: str, tmp_path: pathlib.Path) -> None:
    """From RunPodSandbox to RemovePodSandbox, with two containers that share network, /dev/shm and a volume."""
    tmp_path.chmod(0o755)
    with Pod(cri, mode) as pod:
        status = cri("PodSandboxStatus", pod_sandbox_id=pod.id)["status"]
        assert status.get("runtime_handler", mode) == mode  # CRI-O does not say
        assert status["network"]["ip"].startswith("10.77.0.")
        volume = [{"container_path": "/v", "host_path": str(tmp_path)}]
        server = f"echo page > /tmp/index.html; echo made > /v/made; hostname; httpd -p 80 -h /tmp; echo up; {SERVE}"
        limit = {"memory_limit_in_bytes": 64 << 20}
        first = pod.start("first", server, mounts=volume, resources=limit)
        wait_until(lambda: pod.log("first") == ["pod1", "up"], 30, "the server's log")
        second = pod.start("second", mounts=volume, security={"run_as_user": {"value": 1000}})
        script = "id -u; cat /v/made; wget -q -O - 2>&1 http://127.0.0.1/; touch /dev/shm/x; cat /proc/self/uid_map"
        code, output = pod.exec(second, script)
        assert code == 0, output
        assert len(output.split()) == 6, output
        user, made, page, inside, outside, size = output.split()
        assert (user, made, page, inside) == ("1000", "made", "page", "0")
        assert (outside != "0") == (mode == "syscont")
        assert pod.exec(first, "stat -c %u /dev/shm/x /v /v/made; exit 7") == (7, "1000\n0\n0\n")
        assert pod.exec(first, "cat /proc/self/uid_map")[1].split() == [inside, outside, size]
        assert (tmp_path / "made").stat().st_uid == 0
        _listed_and_limited(cri, pod, first, second)
        cri("StopContainer", container_id=first, timeout=30)
        ended = pod.status(first)
        assert (ended["state"], ended["exit_code"]) == ("CONTAINER_EXITED", 3)
        cri("RemoveContainer", container_id=first)
        cri("RemoveContainer", container_id=first)
    # With the pod everything goes, the running container too; what is gone is gone, and asking again is no error.
    cri("RemovePodSandbox", pod_sandbox_id=pod.id)
    assert pod.id not in [each["id"] for each in cri("ListPodSandbox").get("items", [])]
    assert cri("ListContainers", filter={"pod_sandbox_id": pod.id}) == {}


def _listed_and_limited(cri: Cri, pod: Pod, first: str, second: str) -> None:
    """Lists, statistics, limits that change, logs that are rotated."""
    listed = cri("ListContainers", filter={"pod_sandbox_id": pod.id})["containers"]
    assert {each["id"]: each["state"] for each in listed} == {
        first: "CONTAINER_RUNNING",
        second: "CONTAINER_RUNNING",
    }
    stats = cri("ContainerStats", container_id=first)["stats"]
    assert int(stats["memory"]["working_set_bytes"]["value"]) > 0
    assert int(stats["cpu"]["usage_core_nano_seconds"]["value"]) > 0
    assert memory_limit(cri.client, first) == str(64 << 20)
    cri("UpdateContainerResources", container_id=first, linux={"memory_limit_in_bytes": 96 << 20})
    assert memory_limit(cri.client, first) == str(96 << 20)
    (pod.logs / "first.log").rename(pod.logs / "first.log.1")
    cri("ReopenContainerLog", container_id=first)
    assert (pod.logs / "first.log").exists()


def test_shared_processes(cri: Cri, mode: str) -> None:
    """With `shareProcessNamespace` containers see and signal each other's processes."""
    may_lower = capget()[0] >> capability.NAMES.index("CAP_SYS_RESOURCE") & 1
    if is_crio(cri) and mode == "plain" and not may_lower:
        pytest.skip("CRI-O lowers the sandbox's OOM score; to force it: a root with CAP_SYS_RESOURCE")
    with Pod(cri, mode, pid="POD") as pod:
        first = pod.start("first", "trap 'exit 5' USR1; touch /dev/shm/ready; while :; do sleep 0.1; done # first")
        second = pod.start("second")
        wait_until(lambda: pod.exec(second, "test -e /dev/shm/ready")[0] == 0, 30, "the first")
        assert pod.exec(second, "set -- $(ps -o pid,args | grep '# firs[t]'); kill -USR1 $1") == (0, "")
        wait_until(lambda: pod.status(first)["state"] == "CONTAINER_EXITED", 30, "its end")
        assert pod.status(first)["exit_code"] == 5


def test_restrictions(cri: Cri, mode: str) -> None:
    """A terminal, a read-only root, dropped capabilities, and a limit whose end has its reason."""
    with Pod(cri, mode) as pod:
        pod.start("terminal", "test -t 1 && echo a terminal", tty=True)
        wait_until(lambda: pod.log("terminal") == ["a terminal"], 30, "what the terminal shows")
        security = {"readonly_rootfs": True, "no_new_privs": True, "capabilities": {"drop_capabilities": ["ALL"]}}
        script = "touch /x 2>/dev/null || echo read-only; grep -E 'CapEff|NoNewPrivs' /proc/self/status"
        environment = [{"key": "SYSVISOR_HONOR_CAPS", "value": "TRUE"}]
        pod.start("bound", script, security=security, envs=environment)
        wait_until(lambda: len(pod.log("bound")) == 3, 30, "what it may")
        assert [line.split()[-1] for line in pod.log("bound")] == ["read-only", "0" * 16, "1"]
        # Not before it is started for sure: the shim listens for what the kernel says of its memory from then on.
        script = "until test -e /hungry; do sleep 0.1; done; exec tail /dev/zero"
        hungry = pod.start("hungry", script, resources={"memory_limit_in_bytes": 16 << 20})
        assert pod.exec(hungry, "touch /hungry")[0] == 0
        wait_until(lambda: pod.status(hungry)["state"] == "CONTAINER_EXITED", 60, "its end")
        wait_until(lambda: pod.status(hungry).get("reason") == "OOMKilled", 30, "the reason")


def test_what_cannot_be(cri: Cri, mode: str) -> None:
    """A program that is not there, and for a system container the node's network, are told as such."""
    with Pod(cri, mode) as pod:
        with pytest.raises(Refused, match="no such file or directory"):
            pod.start("missing", command=["/no/such"])
        for each in cri("ListContainers", filter={"pod_sandbox_id": pod.id}).get("containers", []):
            assert pod.status(each["id"])["reason"] == "StartError"  # CRI-O keeps none that it could not create
    if mode == "plain":
        with Pod(cri, mode, network="NODE") as pod:
            assert "pods0" in pod.exec(pod.start("host"), "ls /sys/class/net")[1]
    else:
        refused = pytest.raises(Refused, match=r"cannot share the (uts|network) namespace with the host")
        with refused, Pod(cri, mode, network="NODE") as pod:
            pod.start("host")  # where CRI-O first asks for a container


@pytest.mark.timeout(900)  # the first time a Debian is fetched
def test_pods_with_user_namespaces(newer: Cri, mode: str, tmp_path: pathlib.Path) -> None:
    """With `hostUsers: false` the ids are the kubelet's; a system container rules its network then, and its volumes."""
    ids = [{"host_id": FIRST_ID, "container_id": 0, "length": ID_COUNT}]
    with Pod(newer, mode, userns_options={"mode": "POD", "uids": ids, "gids": ids}) as pod:
        volume = [{"container_path": "/v", "host_path": str(tmp_path)}]
        for name in ("first", "second"):
            container = pod.start(name, mounts=volume)
            code, output = pod.exec(container, "cat /proc/self/uid_map; touch /x; stat -c %u / /bin /home /x")
            assert (code, output.split()) == (0, ["0", str(FIRST_ID), str(ID_COUNT), "0", "0", "1000", "0"])
            if mode == "syscont":
                script = (
                    "touch /v/made; stat -c %u /v /v/made; ip link set lo down && ip link set lo up && echo changed"
                )
                assert pod.exec(container, script) == (0, "0\n0\nchanged\n")
                assert (tmp_path / "made").stat().st_uid == 0


@pytest.mark.parametrize("newer", ["2", "crio"], indirect=True)
def test_an_image_as_a_volume(newer: Cri, mode: str) -> None:
    """The files of another image are there to be read, with the owners that they have in it."""
    image = {"image": IMAGE, "user_specified_image": IMAGE}
    with Pod(newer, mode) as pod:
        container = pod.start("reader", mounts=[{"container_path": "/v", "readonly": True, "image": image}])
        script = "stat -c %u /v /v/home /v/second; cat /v/second; touch /v/x 2>&1 | grep -o Read-only"
        assert pod.exec(container, script) == (0, "0\n1000\n0\nsecond\nRead-only\n")
