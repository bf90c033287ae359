"""Where the libraries of this package are found: the program starts without site-packages (-S), which costs 10 ms.

Called before a library is imported, never at the top of a module.
"""

from __future__ import annotations

import os
import sys


def make_importable() -> None:
    """Append the places of third-party libraries to sys.path, once.

    They come behind the standard library, which they so cannot shadow, in this order: the virtual environment that
    `make` sets up beside the sources, that of the interpreter, pip's and Debian's own.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    sources = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    environments = [f"{sources}/.venv", os.path.dirname(os.path.dirname(sys.executable))]
    places = [f"{path}/lib/{version}/site-packages" for path in environments if os.path.exists(f"{path}/pyvenv.cfg")]
    places += [f"/usr/local/lib/{version}/dist-packages", "/usr/lib/python3/dist-packages"]
    sys.path += [path for path in places if path not in sys.path and os.path.isdir(path)]
