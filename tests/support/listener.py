"""Somebody at the other end of a socket to which the runtime hands descriptors, such as terminals."""

import array
import os
import pathlib
import socket
import threading
from types import TracebackType


class Listener:
    """Takes what is sent to `path` until the `with` block ends.

    Attributes: `descriptors`, what was sent, closed at the end.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.descriptors: list[int] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(100)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> "Listener":
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()
        for fd in self.descriptors:
            os.close(fd)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                _, control, _, _ = connection.recvmsg(4096, 1024)
                for _, _, data in control:
                    self.descriptors += array.array("i", data)
