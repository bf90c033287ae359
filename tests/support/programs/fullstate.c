/* user-mode-linux on processors whose registers do not fit into it: preloaded into the kernel's own process.
 *
 * It moves the extended registers of its processes by ptrace(2) in a buffer of 2696 bytes, enough for AVX-512. Where
 * the host has more (AMX), reading truncates, but writing must be of all of it or is refused (EFAULT), and the guest
 * dies at its first process. Here what is missing is filled up from what the process has: nothing in the guest uses it,
 * since its kernel does not know of it.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define NT_X86_XSTATE 0x202

static long set_part(pid_t pid, const struct iovec *part)
{
    static char all[1 << 16];
    struct iovec whole = { all, sizeof all };

    if (syscall(SYS_ptrace, PTRACE_GETREGSET, pid, NT_X86_XSTATE, &whole) < 0)
        return -1;
    if (part->iov_len >= whole.iov_len) {
        errno = EFAULT;
        return -1;
    }
    memcpy(all, part->iov_base, part->iov_len);
    return syscall(SYS_ptrace, PTRACE_SETREGSET, pid, NT_X86_XSTATE, &whole);
}

/* In the place of the C library's. */
long ptrace(enum __ptrace_request request, ...)
{
    va_list arguments;
    long result, peeked;
    pid_t pid;
    void *address, *data;

    va_start(arguments, request);
    pid = va_arg(arguments, pid_t);
    address = va_arg(arguments, void *);
    data = va_arg(arguments, void *);
    va_end(arguments);
    /* The system call stores what it has read; the C library returns it. */
    if (request == PTRACE_PEEKTEXT || request == PTRACE_PEEKDATA || request == PTRACE_PEEKUSER)
        return syscall(SYS_ptrace, request, pid, address, &peeked) < 0 ? -1 : (errno = 0, peeked);
    result = syscall(SYS_ptrace, request, pid, address, data);
    if (result < 0 && request == PTRACE_SETREGSET && address == (void *)NT_X86_XSTATE)
        return set_part(pid, data);
    return result;
}
