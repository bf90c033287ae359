"""The last stage: a static ELF in a sealed memory file that makes a list of system calls and ends in execve.

The list is laid out here; what runs it is contrib/stage/stage.c. May import kernel only.
"""

from __future__ import annotations

import fcntl
import os
from _struct import Struct  # struct itself is one more file to load

from sysvisor_runc.child.stage_code import CODE
from sysvisor_runc.kernel import mount as m
from sysvisor_runc.kernel.syscall import MACHINE, NUMBERS, syscall

IGNORE_ERROR = 1
SAY_WHY = 2
# As `skip`: the list ends here if the result is 0, which for a read means that the other end is gone.
END = 1 << 20

_WORD = 0xFFFFFFFFFFFFFFFF
_nine_words = Struct("<9Q").pack

_TEXT_AT = 0x400000
_DATA_AT = 0x800000
_PAGE = 0x1000
# The size of `struct list` up to its entries, and of `struct entry`, in contrib/stage/stage.c.
_LIST_HEAD = 9 * 8
_ENTRY = 9 * 8
_ERRNO_TEXTS = 81
# EPERM ENOENT EIO E2BIG ENOEXEC EAGAIN ENOMEM EACCES EFAULT ENOTDIR EISDIR EINVAL ENFILE EMFILE ETXTBSY ENAMETOOLONG
# ENOSYS ELOOP ELIBBAD
_EXECVE_ERRORS = (1, 2, 5, 7, 8, 11, 12, 13, 14, 20, 21, 22, 23, 24, 26, 36, 38, 40, 80)
_ELF_MACHINE = {"x86_64": 62, "aarch64": 183}
# A signal handler that ends the program with 128 and the signal's number. As instructions:
#   x86_64:  lea edi, [rdi+128]; mov eax, 231 (exit_group); syscall
#   aarch64: add w0, w0, #128; mov x8, #94 (exit_group); svc #0
_HANDLER = {"x86_64": "8dbf80000000b8e70000000f05", "aarch64": "00000211c80b80d2010000d4"}
_SA_RESTORER = 0x04000000  # x86_64 delivers no signal without one; the handler does not return to it

MFD_CLOEXEC = 1
MFD_ALLOW_SEALING = 2
MFD_EXEC = 0x10
F_ADD_SEALS = 1033
_ALL_SEALS = 0x1F  # SEAL, SHRINK, GROW, WRITE; EXEC (0x20) where the kernel has it is left to MFD_EXEC


class Slot:
    """Memory that a later call uses by address: `head`, then the four bytes of a call's result."""

    __slots__ = ("address", "head")

    def __init__(self, head: bytes = b"") -> None:
        self.head = head
        self.address = -1


class Result:
    """The result of an earlier call, such as a descriptor, as an argument of one later call.

    The earlier one stores it right into that call's entry of the list.
    """

    __slots__ = ("address",)

    def __init__(self) -> None:
        self.address = 0


class Blob:
    """Bytes with addresses of other data patched in: `patches` is a list of (position, data)."""

    __slots__ = ("data", "patches")

    def __init__(self, data: bytes, patches: list[tuple[int, bytes | Slot | Blob]] | None = None) -> None:
        self.data = data
        self.patches = patches or []


class Call:
    """One system call of the list.

    Attributes:
        name: the call's name, as in kernel.syscall.NUMBERS.
        args: integers, bytes (passed by address), a Slot or a Blob (by address), a list of strings as bytes (argv or
            envp: an array of addresses closed by a null one), or a Result (the number itself).
        flags: IGNORE_ERROR, SAY_WHY.
        skip: how many calls are left out where the result is 0: after a fork, those of the parent.
        store: where the result goes.
        what: what it is for, in an error message and in the plan that `--debug` prints.
    """

    __slots__ = ("args", "flags", "name", "skip", "store", "what")

    def __init__(
        self,
        name: str,
        *args: int | bytes | Slot | Blob | Result | list[bytes],
        flags: int = 0,
        store: Slot | Result | None = None,
        skip: int = 0,
        what: str = "",
    ) -> None:
        self.name = name
        self.args = args
        self.flags = flags
        self.store = store
        self.skip = skip
        self.what = what or name


def end_on(signal: int) -> Call:
    """Have `signal` end the program. As the first process of a pid namespace it would ignore it (pid_namespaces(7)).

    The program's execve puts the default back.
    """
    handler = _TEXT_AT + 64 + 2 * 56 + len(CODE[MACHINE]) // 2
    # struct kernel_sigaction: handler, flags, restorer, mask; both architectures have it so.
    action = b"".join(map(_u64, (handler, _SA_RESTORER, handler, 0)))
    return Call("rt_sigaction", signal, action, 0, 8, flags=IGNORE_ERROR)


class _Layout:
    """Places data behind the list and knows the addresses."""

    def __init__(self, head: int) -> None:
        self.head = head
        self.memory = bytearray()

    def place(self, data: bytes) -> int:
        offset = len(self.memory)
        self.memory += data
        self.memory += bytes(-len(data) % 8)
        return _DATA_AT + self.head + offset

    def slot(self, slot: Slot) -> int:
        if slot.address < 0:
            slot.address = self.place(slot.head + bytes(4))
        return slot.address

    def blob(self, blob: Blob) -> int:
        data = bytearray(blob.data)
        for position, part in blob.patches:
            data[position : position + 8] = _u64(self.value(part))
        return self.place(bytes(data))

    def strings(self, strings: list[bytes]) -> int:
        addresses = [self.place(s + b"\0") for s in strings]
        return self.place(b"".join(_u64(a) for a in [*addresses, 0]))

    def value(self, arg: int | bytes | Slot | Blob | Result | list[bytes]) -> int:
        if isinstance(arg, int):
            return arg
        if isinstance(arg, Result):
            return 0
        if isinstance(arg, bytes):
            return self.place(arg)
        if isinstance(arg, Slot):
            return self.slot(arg)
        if isinstance(arg, Blob):
            return self.blob(arg)
        return self.strings(arg)


def _u64(number: int) -> bytes:
    return (number & _WORD).to_bytes(8, "little")


def build(calls: list[Call], *, report_fd: int = -1, prefix: str = "", exit_code: int = 255) -> bytes:
    """The ELF image that makes `calls` in order.

    A call that fails ends the program with `exit_code`, after writing its index and errno (two u32) to `report_fd`.
    Where that is closed by then and the call has SAY_WHY, `prefix` and the errno text go to stderr.
    """
    layout = _Layout(_LIST_HEAD + len(calls) * _ENTRY)
    _find_results(calls)
    entries = b"".join([_entry(layout, call) for call in calls])
    unknown = b""
    table = 0
    if any(call.flags & SAY_WHY for call in calls):
        table, unknown = _errno_table(layout)
    said = prefix.encode("utf-8", "surrogateescape")
    head = b"".join(
        [
            _u64(len(calls)),
            _u64(report_fd),
            _u64(layout.place(said)),
            _u64(len(said)),
            _u64(layout.place(unknown)),
            _u64(len(unknown)),
            _u64(_ERRNO_TEXTS if table else 0),
            _u64(table),
            _u64(exit_code),
        ]
    )
    return _elf(bytes(head + entries + layout.memory))


def _entry(layout: _Layout, call: Call) -> bytes:
    """A call as `struct entry`. Most arguments are small numbers, and there are fifty calls: hence the shortcut."""
    args = [a if type(a) is int and a >= 0 else layout.value(a) & _WORD for a in call.args]
    args += [0] * (6 - len(args))
    store = 0
    if isinstance(call.store, Result):
        store = call.store.address
    elif call.store:
        store = layout.slot(call.store) + len(call.store.head)
    return _nine_words(NUMBERS[call.name], *args, store, call.flags | call.skip << 8)


def _find_results(calls: list[Call]) -> None:
    """Tell each Result where in the list it is an argument: behind the number of its call."""
    for index, call in enumerate(calls):
        for position, arg in enumerate(call.args):
            if type(arg) is Result:
                arg.address = _DATA_AT + _LIST_HEAD + index * _ENTRY + 8 * (1 + position)


def _errno_table(layout: _Layout) -> tuple[int, bytes]:
    """Texts for what execve(2) and the calls around it fail with; any other number is an unknown error."""
    unknown = b"unknown error\n"
    texts = [os.strerror(number) for number in _EXECVE_ERRORS]
    lines = [(text[:1].lower() + text[1:] + "\n").encode() for text in texts]
    address = layout.place(b"".join([unknown, *lines]))
    rows = [_u64(address) + _u64(len(unknown))] * _ERRNO_TEXTS
    address += len(unknown)
    for number, line in zip(_EXECVE_ERRORS, lines, strict=True):
        rows[number] = _u64(address) + _u64(len(line))
        address += len(line)
    return layout.place(b"".join(rows)), unknown


def _elf(data: bytes) -> bytes:
    """A static executable: the code readable and executable at _TEXT_AT, `data` writable at _DATA_AT."""
    code = bytes.fromhex(CODE[MACHINE] + _HANDLER[MACHINE])
    text_size = 64 + 2 * 56 + len(code)
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += (2).to_bytes(2, "little") + _ELF_MACHINE[MACHINE].to_bytes(2, "little") + (1).to_bytes(4, "little")
    header += _u64(_TEXT_AT + 64 + 2 * 56) + _u64(64) + _u64(0) + bytes(4)
    header += b"".join(n.to_bytes(2, "little") for n in (64, 56, 2, 0, 0, 0))
    # PT_GNU_STACK is left out on purpose: the stack of the next program is that program's business.
    text = _program_header(5, 0, _TEXT_AT, text_size)
    writable = _program_header(6, _PAGE, _DATA_AT, len(data))
    return (header + text + writable + code).ljust(_PAGE, b"\0") + data


def _program_header(flags: int, offset: int, address: int, size: int) -> bytes:
    fields = [offset, address, address, size, size, _PAGE]
    return (1).to_bytes(4, "little") + flags.to_bytes(4, "little") + b"".join(_u64(n) for n in fields)


def memory_file(image: bytes) -> int:
    """`image` in a sealed, executable, close-on-exec memory file (memfd_create(2); MFD_EXEC since Linux 6.3).

    Where `vm.memfd_noexec=2` forbids those: in the only file of a read-only tmpfs that is mounted nowhere.
    """
    name = b"sysvisor-runc init\0"
    flags = MFD_CLOEXEC | MFD_ALLOW_SEALING
    try:
        fd = syscall("memfd_create", name, flags | MFD_EXEC)
    except OSError as error:
        if error.errno == 13:  # EACCES
            return _file_mounted_nowhere(image)
        if error.errno != 22:  # EINVAL: before MFD_EXEC existed every memory file was executable
            raise
        fd = syscall("memfd_create", name, flags)
    _write(fd, image)
    fcntl.fcntl(fd, F_ADD_SEALS, _ALL_SEALS)
    return fd


def _write(fd: int, image: bytes) -> None:
    view = memoryview(image)
    while view:
        view = view[os.write(fd, view) :]


def _file_mounted_nowhere(image: bytes) -> int:
    context = m.fsopen("tmpfs")
    m.fsconfig(context, m.FSCONFIG_CMD_CREATE)
    root = m.fsmount(context)
    fd = os.open("init", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o700, dir_fd=root)
    _write(fd, image)
    os.close(fd)  # a file that is open for writing is not executed
    m.mount_setattr(root, "", m.AT_EMPTY_PATH, attr_set=m.MOUNT_ATTR_RDONLY)
    try:
        return os.open("init", os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    finally:
        os.close(root)
        os.close(context)
