"""What an installed `sysvisor-runc` loads its code with: one file holds all modules, compiled.

Finding, opening and checking seventy files costs as much as running them, so the modules lie in one archive, and a
module brings those that it needs with it. This file is compiled into the archive's head by `tools/install.py`; it runs
right after `archive_os.py` and imports nothing that costs. Where there is no archive for the interpreter, the ordinary
files beside it are used.
"""

import marshal
import os  # archive_os.py's
import sys
from _frozen_importlib import ModuleSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import CodeType, ModuleType

    Index = Mapping[str, tuple[int, int, bool]]
    Groups = Mapping[str, Sequence[str]]


class Archive:
    """A finder and loader for `sys.meta_path`.

    Attributes:
        path: of the archive.
        index: module → (offset, size, whether it is a package).
        groups: module → modules to be there first, in order.
        library: directory of the sources, for tracebacks and for what is not in the archive.
    """

    __slots__ = ("groups", "index", "library", "path")

    def __init__(self, path: str, index: "Index", groups: "Groups", library: str) -> None:
        self.path = path
        self.index = index
        self.groups = groups
        self.library = library

    def find_spec(self, name: str, path: object = None, target: object = None) -> "ModuleSpec | None":
        """Load what the module needs, and say that the module itself is to be had here."""
        if name not in self.index:
            return None
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            for needed in self.groups.get(name, ()):
                if needed not in sys.modules:
                    self._load(fd, needed)
        finally:
            os.close(fd)
        return self._spec(name)

    def create_module(self, spec: "ModuleSpec") -> None:
        """An ordinary module will do."""

    def exec_module(self, module: "ModuleType") -> None:
        """Run the code of one module."""
        fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            code = self._code(fd, module.__name__)
        finally:
            os.close(fd)
        exec(code, module.__dict__)

    def _code(self, fd: int, name: str) -> "CodeType":
        offset, size, _ = self.index[name]
        code: CodeType = marshal.loads(os.pread(fd, size, offset))
        return code

    def _spec(self, name: str) -> "ModuleSpec":
        package = self.index[name][2]
        base = f"{self.library}/{name.replace('.', '/')}"
        origin = f"{base}/__init__.py" if package else f"{base}.py"
        # To be a subclass of importlib's Loader is not needed, and that would have to be imported.
        spec = ModuleSpec(name, self, origin=origin, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [base]
        return spec

    def _load(self, fd: int, name: str) -> None:
        """Make and run a module without going through the import system; what it imports is there already.

        It has no spec: nobody asks a module that is complete for one, and making seventy takes half a millisecond.
        """
        module = type(sys)(name)
        parent, _, last = name.rpartition(".")
        own = module.__dict__
        base = f"{self.library}/{name.replace('.', '/')}"
        if self.index[name][2]:
            own["__package__"] = name
            own["__path__"] = [base]
        else:
            own["__package__"] = parent
            own["__file__"] = base + ".py"
        sys.modules[name] = module
        exec(self._code(fd, name), own)
        if parent in sys.modules:
            setattr(sys.modules[parent], last, module)
