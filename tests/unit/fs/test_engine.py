"""Slow requests among the workers, without a kernel: its side of the connection is a file."""

import os
import pathlib
import threading
from collections.abc import Iterator

import pytest

from sysvisor_fs.fuse import protocol as p
from sysvisor_fs.fuse.engine import QUESTIONS, Engine, Link
from sysvisor_fs.fuse.handles import Handles
from sysvisor_fs.fuse.journal import Journal
from sysvisor_fs.fuse.names import Names
from sysvisor_fs.fuse.session import Session
from sysvisor_fs.node import Branch, Caller, Container, File
from tests.support.runtime import wait_until


class Question(File):
    """A file that asks a process, which answers when it is let."""

    fast = False
    asks = True

    def __init__(self) -> None:
        self.may_answer = threading.Event()
        self.asked: list[Caller] = []
        self.late: list[bool] = []

    def read(self, container: Container, caller: Caller) -> bytes:
        self.asked.append(caller)
        self.may_answer.wait(60)
        self.late.append(not caller.waits())
        return b"answer"


@pytest.fixture
def question() -> Question:
    """The file `question`."""
    return Question()


@pytest.fixture
def engine() -> Engine:
    """An engine whose thread does not run."""
    return Engine(Journal())


@pytest.fixture
def link(question: Question, tmp_path: pathlib.Path) -> Iterator[Link]:
    """A connection whose answers go to a file."""
    names = Names(str(tmp_path / "names"), Branch({"question": question}))
    fd = os.open(tmp_path / "answers", os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC)
    yield Link(fd, Session(Container("c"), 7, names, Handles()))
    question.may_answer.set()
    os.close(fd)
    names.close()


def ask(engine: Engine, link: Link, count: int, first: int = 2) -> None:
    """Have that many read the file."""
    node = link.session._tell("question", link.session.names.table[p.ROOT_ID].node.entries["question"])  # type: ignore[union-attr]
    for unique in range(first, first + 2 * count, 2):
        body = p.READ_IN.pack(0, 0, 100, 0, 0, 0, 0)
        data = p.IN_HEADER.pack(40 + len(body), p.READ, unique, node, 0, 0, 0, 0, 0) + body
        slot = engine.journal.free.pop()
        engine.journal.buffers[slot][: len(data)] = data
        assert not engine.handle(link, slot, len(data))


def test_few_workers_ask_for_one_container(engine: Engine, link: Link, question: Question) -> None:
    """Its other questions wait without a worker, and all are answered in the end."""
    ask(engine, link, 10)
    wait_until(lambda: len(question.asked) == QUESTIONS)
    assert (len(link.pending), len(link.questions), link.asking) == (10, 10 - QUESTIONS, QUESTIONS)
    question.may_answer.set()
    wait_until(lambda: not link.pending and link.asking == 0)
    assert (len(question.asked), any(question.late)) == (10, False)


def test_worker_is_told_that_its_caller_has_gone(engine: Engine, link: Link, question: Question) -> None:
    """Once an interrupt has answered a request, whoever is about it can see that."""
    ask(engine, link, 1)
    wait_until(lambda: len(question.asked) == 1)
    interrupt = p.IN_HEADER.pack(48, p.INTERRUPT, 99, 0, 0, 0, 0, 0, 0) + p.INTERRUPT_IN.pack(2)
    slot = engine.journal.free.pop()
    engine.journal.buffers[slot][: len(interrupt)] = interrupt
    assert engine.handle(link, slot, len(interrupt))
    question.may_answer.set()
    wait_until(lambda: question.late == [True])
