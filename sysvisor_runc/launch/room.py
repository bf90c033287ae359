"""Who has the lock of a state root's supervisor, and how a service has it given up in an orderly way.

    ROOT/@supervisor/wanted     a service wants the lock: who has it ends, and the containers are the service's

A supervisor that `run --detach` has started has no socket any more once a service manager listens in its place, so it
could not be asked otherwise.
"""

from __future__ import annotations

import fcntl
import os
import time

from sysvisor_runc.launch.supervised import LOCK, take_lock
from sysvisor_runc.launch.tell import DIRECTORY

WANTED = "wanted"
# The other one looks every two seconds, and a busy machine is slow.
_PATIENCE = 40.0
# Somebody may be having a look at the lock (`is_taken`).
_HASTE = 0.2


def obtain_lock(directory: int, *, insist: bool) -> int:
    """The lock; where we `insist`, once who has it has made room. -1: another has it and keeps it. Raises OSError."""
    deadline = time.monotonic() + (_PATIENCE if insist else _HASTE)
    while (lock := take_lock(directory)) < 0 and time.monotonic() < deadline:
        if insist:
            # Again and again: one that has just begun removes what it finds.
            flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            os.close(os.open(WANTED, flags, 0o600, dir_fd=directory))
        time.sleep(0.05)
    if insist:
        try:
            os.unlink(WANTED, dir_fd=directory)
        except FileNotFoundError:
            pass
    return lock


def is_wanted(root: str) -> bool:
    """Whether somebody asks the supervisor to make room."""
    return os.path.exists(f"{root}/{DIRECTORY}/{WANTED}")


def forget_wanted(root: str) -> None:
    """What is left of one that was killed; whoever still wants the lock asks again."""
    try:
        os.unlink(f"{root}/{DIRECTORY}/{WANTED}")
    except OSError:
        pass


def is_taken(root: str) -> bool:
    """Whether a supervisor lives, without a connection: that would start one where a service manager listens."""
    try:
        lock = os.open(f"{root}/{DIRECTORY}/{LOCK}", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False
