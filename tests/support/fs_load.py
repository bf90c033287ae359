"""What a container does to its files in the tests of survival: reads or writes without pause, and checks every answer.

fs_load.py read|write EXPECTED IDENTITY LONG VALUE    descriptors of trees; ends when its standard input does
"""

import json
import os
import select
import sys
import time


def fetch(fd: int) -> bytes:
    file = os.open(f"/proc/self/fd/{fd}", os.O_RDONLY)
    try:
        parts = []
        while part := os.read(file, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(file)


def put(fd: int, data: bytes) -> None:
    file = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_TRUNC)
    try:
        os.write(file, data)
    finally:
        os.close(file)


def step(kind: str, turn: int, expected: bytes, fds: list[int]) -> str:
    """One access; what is wrong with it."""
    if kind == "write":
        put(fds[2], b"%d\n" % turn)
        got, wanted = fetch(fds[2]), b"%d\n" % turn
    elif turn % 64 == 0:
        got, wanted = fetch(fds[1]), b"".join(b"%07d\n" % number for number in range(65536))
    else:
        got, wanted = fetch(fds[0]), expected
    return "" if got == wanted else f"turn {turn}: {got[:60]!r} of {len(got)} rather than {wanted[:60]!r}"


def main() -> None:
    kind, expected, *numbers = sys.argv[1:]
    fds = [int(number) for number in numbers]
    turns, worst, wrong = 0, 0.0, []
    while not select.select([0], [], [], 0)[0]:
        turns += 1
        began = time.monotonic()
        try:
            problem = step(kind, turns, expected.encode() + b"\n", fds)
        except OSError as error:
            problem = f"turn {turns}: {error}"
        worst = max(worst, time.monotonic() - began)
        if problem:
            wrong.append(problem)
        if kind == "write":
            time.sleep(0.001)
    print(json.dumps({"turns": turns, "worst": worst, "wrong": wrong[:5], "count": len(wrong)}))


if __name__ == "__main__":
    main()
