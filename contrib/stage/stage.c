/*
 * The last program of ours that a container process runs: it performs a list of system calls and ends in execve.
 *
 * Why it exists: a Python interpreter that calls execve("/proc/self/exe") inside a container without a user namespace
 * hands the host's interpreter file to the container (CVE-2019-5736). This program lives in a sealed memory file, so
 * there is nothing of the host's to reach, and a container that waits for `start` is one page, not an interpreter.
 *
 * It holds no policy. child/stage.py lays the list out at DATA in the same file; `make stage` compiles this for each
 * architecture into child/stage_code.py. No libc, no relocations, no writable data but the list.
 */
typedef unsigned long u64;
typedef long s64;
typedef unsigned int u32;

#define DATA 0x800000UL

#define IGNORE_ERROR 1    /* go on if the call fails */
#define SAY_WHY 2         /* if nobody took the report, tell stderr: "<prefix><errno text>\n" */

struct entry {
	u64 number;
	u64 argument[6];
	u32 *store; /* where the result goes, or null */
	u64 flags;  /* the bits above, and from bit 8: how many entries to skip if the result is 0 (the child of a fork) */
};

struct text {
	u64 address;
	u64 length;
};

struct list {
	u64 count;
	s64 report_fd; /* gets {u32 index, u32 errno} of the call that failed; the list may close it */
	struct text prefix;
	struct text unknown;  /* the text for an errno outside the table */
	u64 errno_texts;      /* how many */
	struct text *errno_text;
	u64 exit_code;
	struct entry entry[];
};

#if defined(__x86_64__)
#define NR_write 1
#define NR_exit_group 231
static inline s64 call(u64 n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	register u64 r10 __asm__("r10") = d;
	register u64 r8 __asm__("r8") = e;
	register u64 r9 __asm__("r9") = f;
	s64 result;
	__asm__ volatile("syscall"
			 : "=a"(result)
			 : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return result;
}
#elif defined(__aarch64__)
#define NR_write 64
#define NR_exit_group 94
static inline s64 call(u64 n, u64 a, u64 b, u64 c, u64 d, u64 e, u64 f)
{
	register u64 x8 __asm__("x8") = n;
	register u64 x0 __asm__("x0") = a;
	register u64 x1 __asm__("x1") = b;
	register u64 x2 __asm__("x2") = c;
	register u64 x3 __asm__("x3") = d;
	register u64 x4 __asm__("x4") = e;
	register u64 x5 __asm__("x5") = f;
	__asm__ volatile("svc 0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return (s64)x0;
}
#else
#error "no system call sequence for this architecture"
#endif

__attribute__((noreturn, section(".text.start"))) void _start(void)
{
	struct list *list = (struct list *)DATA;

	for (u64 i = 0; i < list->count; i++) {
		struct entry *e = &list->entry[i];
		u64 *a = e->argument;
		s64 result;

		do /* EINTR: a signal that does nothing must not fail the launch */
			result = call(e->number, a[0], a[1], a[2], a[3], a[4], a[5]);
		while (result == -4);
		if (e->store)
			*e->store = (u32)result;
		if (result >= -4095 && result < 0) {
			u64 number = (u64)-result;
			if (e->flags & IGNORE_ERROR)
				continue;
			u32 report[2] = {(u32)i, (u32)number};
			int told = list->report_fd >= 0 &&
				   call(NR_write, (u64)list->report_fd, (u64)report, sizeof report, 0, 0, 0) > 0;
			if (!told && (e->flags & SAY_WHY)) {
				struct text *why = number < list->errno_texts ? &list->errno_text[number] : &list->unknown;
				call(NR_write, 2, list->prefix.address, list->prefix.length, 0, 0, 0);
				call(NR_write, 2, why->address, why->length, 0, 0, 0);
			}
			for (;;)
				call(NR_exit_group, list->exit_code, 0, 0, 0, 0, 0);
		}
		if (result == 0)
			i += e->flags >> 8;
	}
	for (;;)
		call(NR_exit_group, list->exit_code, 0, 0, 0, 0, 0);
}
