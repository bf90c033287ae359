"""The supervisor's lock: who has it, who asks for it, and who gives it up."""

import os
import pathlib
import threading
import time
from collections.abc import Iterator

import pytest

from sysvisor_runc.launch import room
from sysvisor_runc.launch.supervised import open_directory, take_lock


@pytest.fixture
def directory(tmp_path: pathlib.Path) -> Iterator[int]:
    """The supervisor's directory of the state root `tmp_path`."""
    fd = open_directory(str(tmp_path))
    yield fd
    os.close(fd)


def test_a_look_takes_nothing(tmp_path: pathlib.Path, directory: int) -> None:
    """Whether it is taken is told without taking it, before there is a lock as well."""
    assert not room.is_taken(str(tmp_path))
    lock = room.obtain_lock(directory, insist=False)
    assert lock >= 0
    assert room.is_taken(str(tmp_path))
    assert room.obtain_lock(directory, insist=False) == -1
    assert not room.is_wanted(str(tmp_path))
    os.close(lock)
    assert not room.is_taken(str(tmp_path))


def test_room_is_made_on_request(tmp_path: pathlib.Path, directory: int) -> None:
    """Who insists is noticed, even by one that has forgotten an earlier request, and nothing of it remains."""
    lock, root = take_lock(directory), str(tmp_path)

    def give_up() -> None:
        for _ in range(2):
            while not room.is_wanted(root):
                time.sleep(0.005)
            room.forget_wanted(root)
        os.close(lock)

    holder = threading.Thread(target=give_up)
    holder.start()
    gained = room.obtain_lock(directory, insist=True)
    holder.join()
    assert gained >= 0
    assert not room.is_wanted(root)
    room.forget_wanted(root)
    os.close(gained)
