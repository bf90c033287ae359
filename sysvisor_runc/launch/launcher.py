"""The supervisor's helper for what it cannot do itself: start containers again, and keep their terminals.

A process of its own with one thread and no loop: clone3 and setns want that, and the supervisor may have threads. It
holds a duplicate of every terminal's master that the supervisor has, so that a supervisor that crashes hangs up
nobody's terminal: it then starts another one and gives it the masters. After an orderly end it waits for that.

    supervisor → launcher   {"do": "launch", "id": ID, "pid": PID, "start": TICKS}    start it again
                            {"do": "keep", "id": ID}  with pidfd and master           keep this terminal
                            {"do": "drop", "id": ID}                                  … no more
                            {"do": "bye"}                                             the end is an orderly one
    launcher → supervisor   {"id": ID, "done": true|false} or {"id": ID, "error": TEXT}
"""

from __future__ import annotations

import _socket
import os
import select
import time

from sysvisor_runc import log
from sysvisor_runc.errors import SysvisorError
from sysvisor_runc.jsonlight import dumps, loads
from sysvisor_runc.launch.tell import Dialogue, received

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from sysvisor_runc.cgroup.systemd import Connect

# Of a message with its control data.
_MESSAGE_MAX = 1 << 16
# More at once only get into each other's way.
_WORKERS_MAX = 4
# How often a new supervisor is looked for, and how long a supervisor must have lived to be followed at once.
_LOOK_EVERY = 1.0
_LIVED = 5.0


class Launcher:
    """One launcher, on its end of the link.

    Attributes:
        respawn: start another supervisor when ours has crashed; not where a service manager does it.
    """

    def __init__(
        self,
        root: str,
        link: _socket.socket,
        connect: Connect,
        move_devices: Callable[[dict[str, str], int], Callable[[], object]],
        *,
        respawn: bool,
    ) -> None:
        self.respawn = respawn
        self._root = root
        self._link = link
        self._connect = connect
        self._move_devices = move_devices
        self._began = time.monotonic()
        self._orderly = False
        # id → its pidfd and its master
        self._kept: dict[str, tuple[int, int]] = {}
        self._queue: list[tuple[str, int, int]] = []
        # what a worker reports on → its id and pid
        self._workers: dict[int, tuple[str, int]] = {}
        self._poll = select.poll()
        self._poll.register(link.fileno(), select.POLLIN)

    def serve(self) -> None:
        """Do as we are told until the supervisor has gone, and then what is left to do."""
        while self._turn():
            pass
        self._queue.clear()
        while self._workers:
            self._turn()
        if self._kept or (self.respawn and not self._orderly):
            self._outlive()

    def _turn(self) -> bool:
        """Wait for something and handle it; False once the link is closed."""
        for fd, _ in self._poll.poll():
            if fd != self._link.fileno():
                self._finished(fd)
            elif not self._received():
                self._poll.unregister(fd)
                return False
        return True

    def _received(self) -> bool:
        try:
            data, control, _, _ = self._link.recvmsg(_MESSAGE_MAX, _socket.CMSG_SPACE(8), _socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            return False
        fds = received(control)
        if not data:
            return False
        message = loads(data)
        if not isinstance(message, dict):
            return True
        container_id = str(message.get("id", ""))
        if message["do"] == "launch":
            self._queue.append((container_id, message["pid"], message["start"]))
            self._next()
        elif message["do"] == "keep" and len(fds) == 2:
            self._drop(container_id)
            self._kept[container_id] = (fds[0], fds[1])
        elif message["do"] == "drop":
            self._drop(container_id)
        elif message["do"] == "bye":
            self._orderly = True
        return True

    def _drop(self, container_id: str) -> None:
        for fd in self._kept.pop(container_id, ()):
            os.close(fd)

    # ---- starts

    def _next(self) -> None:
        while self._queue and len(self._workers) < _WORKERS_MAX:
            container_id, pid, start = self._queue.pop(0)
            reading, writing = os.pipe2(os.O_CLOEXEC)
            worker = os.fork()
            if worker == 0:
                os.close(reading)
                self._work(container_id, (pid, start), writing)
            os.close(writing)
            self._workers[reading] = (container_id, worker)
            self._poll.register(reading, select.POLLIN)

    def _work(self, container_id: str, init: tuple[int, int], report: int) -> NoReturn:
        """In a process of its own: it becomes init's parent and ends, so that init goes to the supervisor."""
        answer: dict[str, object] = {"id": container_id}
        try:
            self._link.close()
            for pidfd, master in self._kept.values():
                os.close(pidfd)
                os.close(master)
            from sysvisor_runc.launch.again import start_again

            answer["done"] = start_again(self._root, container_id, init, self._connect, self._move_devices)
        except SysvisorError as error:
            answer["error"] = error.message
        except BaseException as error:  # noqa: BLE001  # the process's boundary: the supervisor must hear of it
            answer["error"] = f"{type(error).__name__}: {error}"
        try:
            os.write(report, dumps(answer).encode("utf-8", "surrogateescape"))
        finally:
            os._exit(0)

    def _finished(self, report: int) -> None:
        container_id, worker = self._workers.pop(report)
        self._poll.unregister(report)
        answer = os.read(report, _MESSAGE_MAX)
        os.close(report)
        os.waitpid(worker, 0)
        if not answer:
            answer = dumps({"id": container_id, "error": "the process that starts it was killed"}).encode()
        try:
            self._link.send(answer, _socket.MSG_NOSIGNAL)
        except OSError:
            pass  # the supervisor has gone; the next one looks for itself
        self._next()

    # ---- when the supervisor has gone

    def _outlive(self) -> None:
        """Wait for another supervisor, or start one, and give it the terminals that we keep."""
        if not self._orderly:
            log.warning("the supervisor has ended unexpectedly")
            if time.monotonic() - self._began < _LIVED:
                time.sleep(_LIVED)
        while self._kept or not self._orderly:
            for container_id in [i for i, (pidfd, _) in self._kept.items() if _has_ended(pidfd)]:
                self._drop(container_id)
            if self._hand_over():
                return
            time.sleep(_LOOK_EVERY)

    def _hand_over(self) -> bool:
        """Give everything to a supervisor if there is one, or can be; whether that is done."""
        from sysvisor_runc.launch.room import is_taken
        from sysvisor_runc.launch.supervised import reached_supervisor

        again = self.respawn and not self._orderly
        if not again and not is_taken(self._root):
            return not os.path.isdir(self._root)
        try:
            with reached_supervisor(self._root, 10.0) if again else Dialogue(self._root) as dialogue:
                if not self._kept:
                    dialogue.ask({"op": "status"})
                for container_id, fds in [*self._kept.items()]:
                    try:
                        dialogue.ask({"op": "adopt", "id": container_id}, fds)
                    except SysvisorError as error:
                        # It is ending, or has no descriptor left: the terminal's end would be the container's.
                        log.debug(f"hand over the terminal of {container_id}: {error}")
                        continue
                    self._drop(container_id)
        except SysvisorError:
            # Its state root may have gone, and with it all that there was to look after.
            return not os.path.isdir(self._root)
        return not self._kept


def _has_ended(pidfd: int) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(0))
