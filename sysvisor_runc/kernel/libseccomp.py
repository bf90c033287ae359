"""libseccomp.so.2, called through bare `_ctypes`: its own names and argument order, no policy.

Importing this module loads the library (OSError where there is none), so only what compiles a filter imports it.
"""

from __future__ import annotations

import _ctypes
import errno
import os
import struct

from sysvisor_runc.kernel.syscall import buffer

_RTLD_NOW = 2

_NR_SCMP_ERROR = -1

SCMP_FLTATR_ACT_DEFAULT = 1
SCMP_FLTATR_ACT_BADARCH = 2
SCMP_FLTATR_CTL_NNP = 3
SCMP_FLTATR_API_TSKIP = 5
SCMP_FLTATR_CTL_OPTIMIZE = 8  # 2.5
SCMP_FLTATR_API_SYSRAWRC = 9  # 2.5

SCMP_CMP_NE = 1
SCMP_CMP_LT = 2
SCMP_CMP_LE = 3
SCMP_CMP_EQ = 4
SCMP_CMP_GE = 5
SCMP_CMP_GT = 6
SCMP_CMP_MASKED_EQ = 7

# The only token that is not an AUDIT_ARCH_* value: to the kernel x32 is x86_64 with bit 30 of the number set.
SCMP_ARCH_X32 = 0x4000003E
SCMP_ARCH_X86_64 = 0xC000003E
SCMP_ARCH_S390 = 0x00000016
SCMP_ARCH_S390X = 0x80000016
SCMP_ARCH_MIPS = 0x00000008
SCMP_ARCH_MIPSEL = 0x40000008
SCMP_ARCH_MIPS64 = 0x80000008
SCMP_ARCH_MIPSEL64 = 0xC0000008
SCMP_ARCH_MIPS64N32 = 0xA0000008
SCMP_ARCH_MIPSEL64N32 = 0xE0000008


class c_int(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic for the checker only
    _type_ = "i"


class c_uint(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic for the checker only
    _type_ = "I"


class c_void_p(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic for the checker only
    _type_ = "P"


class c_char_p(_ctypes._SimpleCData):  # type: ignore[type-arg]  # generic for the checker only
    _type_ = "z"


class _IntFunction(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = c_int


class _UintFunction(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = c_uint


class _PointerFunction(_ctypes.CFuncPtr):
    _flags_ = _ctypes.FUNCFLAG_CDECL | _ctypes.FUNCFLAG_PYTHONAPI
    _restype_ = c_void_p


_library = _ctypes.dlopen("libseccomp.so.2", _RTLD_NOW)
_init = _PointerFunction(_ctypes.dlsym(_library, "seccomp_init"))
_version = _PointerFunction(_ctypes.dlsym(_library, "seccomp_version"))
_release = _IntFunction(_ctypes.dlsym(_library, "seccomp_release"))
_api_get = _UintFunction(_ctypes.dlsym(_library, "seccomp_api_get"))
_arch_native = _UintFunction(_ctypes.dlsym(_library, "seccomp_arch_native"))
_arch_resolve_name = _UintFunction(_ctypes.dlsym(_library, "seccomp_arch_resolve_name"))
_arch_add = _IntFunction(_ctypes.dlsym(_library, "seccomp_arch_add"))
_arch_remove = _IntFunction(_ctypes.dlsym(_library, "seccomp_arch_remove"))
_attr_set = _IntFunction(_ctypes.dlsym(_library, "seccomp_attr_set"))
_syscall_resolve_name = _IntFunction(_ctypes.dlsym(_library, "seccomp_syscall_resolve_name"))
_syscall_resolve_name_arch = _IntFunction(_ctypes.dlsym(_library, "seccomp_syscall_resolve_name_arch"))
_rule_add_array = _IntFunction(_ctypes.dlsym(_library, "seccomp_rule_add_array"))
_export_bpf = _IntFunction(_ctypes.dlsym(_library, "seccomp_export_bpf"))
_program = _ctypes.dlopen(None, _RTLD_NOW)  # type: ignore[arg-type]  # the stub leaves None out
_dladdr = _IntFunction(_ctypes.dlsym(_program, "dladdr"))


def seccomp_version() -> tuple[int, int, int]:
    """The library's version: major, minor, micro."""
    place: int = _version()
    # struct scmp_version { unsigned int major, minor, micro; }, static in the library.
    major, minor, micro = (c_uint.from_address(place + 4 * i).value for i in range(3))
    return major, minor, micro


def seccomp_api_get() -> int:
    """What library and running kernel can do together; 6 has notifications, 7 (library 2.6) WAIT_KILLABLE_RECV."""
    level: int = _api_get()
    return level


def library_path() -> str:
    """Where the dynamic linker found the library."""
    # Dl_info { const char *dli_fname; void *dli_fbase; const char *dli_sname; void *dli_saddr; }
    info = buffer(4 * struct.calcsize("P"))
    if not _dladdr(c_void_p(_ctypes.dlsym(_library, "seccomp_init")), info):
        raise OSError(errno.ENOENT, "libseccomp.so.2 has no path")
    name: bytes = c_char_p.from_buffer(info).value
    return os.fsdecode(name)


def seccomp_arch_native() -> int:
    """The token of the architecture that the library was built for."""
    token: int = _arch_native()
    return token


def seccomp_arch_resolve_name(name: str) -> int:
    """The token of architecture `name` (`x86_64`, `aarch64`, …), 0 if this library does not know it."""
    token: int = _arch_resolve_name(name.encode())
    return token


def seccomp_syscall_resolve_name(name: str) -> int | None:
    """The native number of `name`; negative where only other architectures have it, None where none does."""
    return _resolved(_syscall_resolve_name(name.encode()))


def seccomp_syscall_resolve_name_arch(token: int, name: str) -> int | None:
    """As `seccomp_syscall_resolve_name`, for the architecture `token`."""
    return _resolved(_syscall_resolve_name_arch(token, name.encode()))


def _resolved(number: int) -> int | None:
    return None if number == _NR_SCMP_ERROR else number


class Filter:
    """A scmp_filter_ctx: rules for one or more architectures. A context manager, which releases it.

    Methods raise OSError with the errno that libseccomp returned and the function's name.
    """

    __slots__ = ("_context",)

    def __init__(self, default_action: int) -> None:
        context: int | None = _init(default_action)
        if not context:
            raise OSError(errno.EINVAL, f"seccomp_init {default_action:#x}: invalid argument")
        self._context = context

    def __enter__(self) -> Filter:
        return self

    def __exit__(self, *exc: object) -> None:
        _release(c_void_p(self._context))

    def arch_add(self, token: int) -> None:
        """Cover the architecture `token` too; EEXIST if it is covered already."""
        _check(_arch_add(c_void_p(self._context), token), "seccomp_arch_add")

    def arch_remove(self, token: int) -> None:
        """Cover it no more."""
        _check(_arch_remove(c_void_p(self._context), token), "seccomp_arch_remove")

    def attr_set(self, attribute: int, value: int) -> None:
        """Set SCMP_FLTATR_* `attribute`; EINVAL or EOPNOTSUPP where library or kernel are too old for it."""
        _check(_attr_set(c_void_p(self._context), attribute, value), "seccomp_attr_set")

    def rule_add_array(self, action: int, number: int, conditions: list[tuple[int, int, int, int]]) -> None:
        """On system call `number`, if all of (argument, SCMP_CMP_*, datum_a, datum_b) hold, do `action`."""
        # struct scmp_arg_cmp { unsigned int arg; enum scmp_compare op; scmp_datum_t datum_a, datum_b; } (64-bit data)
        array = b"".join(struct.pack("@IIQQ", *condition) for condition in conditions)
        result = _rule_add_array(c_void_p(self._context), action, number, len(conditions), array)
        _check(result, "seccomp_rule_add_array")

    def export_bpf(self) -> bytes:
        """The filter as an array of struct sock_filter, in native byte order."""
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            _check(_export_bpf(c_void_p(self._context), fd), "seccomp_export_bpf")
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)


def _check(result: int, function: str) -> None:
    if result < 0:
        raise OSError(-result, f"{function}: {os.strerror(-result)}")
