"""The calls of the contract as the daemon carries them out, whoever brings them: the gateway, or a launch by itself.

    {"op": "mountpoint"}                                     → {"mountpoint": "…"}
    {"op": "preregister", "id": ID, "netns": PATH, "hold": BOOL, "again": BOOL}
                                                             → {"mountpoint": "…"}
    {"op": "register", "id": ID, "initPid": PID, "uid": [FIRST, SIZE], "gid": [FIRST, SIZE], "netns": PATH,
     "readonlyPaths": [PATH, …], "maskedPaths": [PATH, …], "again": BOOL}
    {"op": "update", "id": ID, "created": NANOSECONDS}
    {"op": "unregister", "id": ID}

Who has a container announced with `hold`, and hangs up before it is registered, has it forgotten: that launch has
failed without a word. From its registration on it is known until its init ends. `again` says that this has been asked
before without an answer: what had been done then is no failure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sysvisor_fs.contract import CALLS, AlreadyRegistered, NotRegistered
from sysvisor_runc import log

if TYPE_CHECKING:
    from collections.abc import Callable

    from sysvisor_fs.contract import Ids, Registry

    Request = dict[str, object]
    Answer = dict[str, object]

_ID_MAX = 255  # a container's file system is mounted on a directory of its name
_METHODS = {op: method for method, op in CALLS.items()}


class Calls:
    """Carries them out.

    Attributes:
        ops: their names.
        counts: (method of the contract, status code) → how many calls ended so.
    """

    def __init__(self, registry: Registry) -> None:
        self.counts: dict[tuple[str, str], int] = {}
        self._registry = registry
        self._holders: dict[str, object] = {}  # of what is announced and not registered yet
        self._known: dict[str, Callable[[Request, object], Answer]] = {
            "mountpoint": lambda request, peer: {"mountpoint": registry.mountpoint},
            "preregister": self._preregister,
            "register": self._register,
            "update": self._update,
            "unregister": self._unregister,
        }
        self.ops = tuple(self._known)

    def carry_out(self, op: str, request: Request, peer: object) -> Answer:
        """What a request of `peer` is answered with.

        Raises:
            Exception: those that `failure` knows.
        """
        try:
            answer = self._known[op](request, peer)
        except Exception as error:
            self._count(op, failure(error)[0])
            raise
        self._count(op, "OK")
        return answer

    def left(self, peer: object) -> None:
        """It has hung up: take back what it was holding."""
        for container_id in [name for name, holder in self._holders.items() if holder is peer]:
            del self._holders[container_id]
            log.info(f"container {container_id}: its launch has ended early, forgetting it")
            try:
                self._registry.unregister(container_id)
            except (NotRegistered, OSError) as error:
                log.error(f"container {container_id}: {error}")

    def _count(self, op: str, code: str) -> None:
        key = _METHODS[op], code
        self.counts[key] = self.counts.get(key, 0) + 1

    def _preregister(self, request: Request, peer: object) -> Answer:
        container_id = _id(request)
        try:
            self._registry.pre_register(container_id, _text(request, "netns"))
        except AlreadyRegistered:
            if not request.get("again") or self._registry.init_of(container_id):
                raise
        if request.get("hold"):
            self._holders[container_id] = peer
        return {"mountpoint": self._registry.mountpoint}

    def _register(self, request: Request, peer: object) -> Answer:
        container_id, init_pid = _id(request), _number(request, "initPid")
        if init_pid <= 0:
            raise ValueError(f"InitPid: expected a process id, not {init_pid}")
        try:
            self._registry.register(
                container_id,
                init_pid=init_pid,
                uid=_ids(request, "uid"),
                gid=_ids(request, "gid"),
                proc_ro_paths=_texts(request, "readonlyPaths"),
                proc_mask_paths=_texts(request, "maskedPaths"),
                netns=_text(request, "netns"),
            )
        except AlreadyRegistered:
            if not request.get("again") or self._registry.init_of(container_id) != init_pid:
                raise
        self._holders.pop(container_id, None)
        return {}

    def _update(self, request: Request, peer: object) -> Answer:
        container_id = _id(request)
        if "created" not in request:
            raise ValueError("Ctime is missing")
        self._registry.update(container_id, _number(request, "created"))
        return {}

    def _unregister(self, request: Request, peer: object) -> Answer:
        container_id = _id(request)
        self._registry.unregister(container_id)
        self._holders.pop(container_id, None)
        return {}


def failure(error: Exception) -> tuple[str, str]:
    """The status code of what a call has failed with, and the reason in words."""
    if isinstance(error, AlreadyRegistered):
        problem = f"{error} is registered already; is there a container of that name under another --root?"
        return "ALREADY_EXISTS", problem
    if isinstance(error, (NotRegistered, ProcessLookupError)):
        return "NOT_FOUND", str(error)
    if isinstance(error, ValueError):
        return "INVALID_ARGUMENT", str(error)
    if isinstance(error, OSError):
        return "INTERNAL", str(error)
    return "INTERNAL", f"internal error: {type(error).__name__}"


def _id(request: Request) -> str:
    text = _text(request, "id")
    if not 0 < len(text.encode()) <= _ID_MAX or "/" in text or "\0" in text or text in (".", ".."):
        raise ValueError(f"Id: expected a file's name of at most {_ID_MAX} bytes, not {text[:64]!r}")
    return text


def _text(request: Request, key: str) -> str:
    value = request.get(key, "")
    if not isinstance(value, str):
        raise ValueError(f"{key}: expected a text")
    return value


def _texts(request: Request, key: str) -> tuple[str, ...]:
    value = request.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise ValueError(f"{key}: expected a list of texts")
    return tuple(value)


def _number(request: Request, key: str) -> int:
    value = request.get(key, 0)
    if type(value) is not int:  # nor a bool
        raise ValueError(f"{key}: expected a number")
    return value


def _ids(request: Request, key: str) -> Ids:
    value = request.get(key, [0, 0])
    if not isinstance(value, list) or [type(one) for one in value] != [int, int]:
        raise ValueError(f"{key}: expected the first id and how many there are")
    return value[0], value[1]
