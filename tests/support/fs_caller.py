"""Makes the calls of launches with the runtime's client until a line comes in; says `round` after each, or a failure.

python fs_caller.py ADDRESS
"""

import asyncio
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from sysvisor_runc.aio.fs import Caller

_IDS = [100_000, 65536]


async def main() -> None:
    """Until told to end."""
    caller = Caller()
    end = asyncio.Event()
    asyncio.get_running_loop().add_reader(0, end.set)
    while not end.is_set():
        for more in (
            {"call": "prepare"},
            {"call": "register", "initPid": os.getpid(), "uid": _IDS, "gid": _IDS},
            {"call": "update", "created": 1},
            {"call": "unregister"},
        ):
            answer = await caller.carry_out({"id": "called", "target": sys.argv[1], **more})
            if "error" in answer:
                print(more["call"], answer, flush=True)
        print("round", flush=True)
    await caller.close()


asyncio.run(main())
