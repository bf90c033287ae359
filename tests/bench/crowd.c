/* Processes like many containers': crowd COUNT NAME DIRECTORY… Each is the init of a pid namespace and sits in cgroups
 * NAME-0, NAME-1 … below the directories. Each reads the files named in READ, separated by spaces. It prints a line with
 * all pids, and when its standard input ends it ends them and removes the cgroups. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char path[4096], content[1 << 16];

/* One of them, for good. */
static int stay(char **directories, const char *name, int number, char *files, int ready)
{
	for (; *directories; directories++) {
		snprintf(path, sizeof path, "%s/%s-%d/cgroup.procs", *directories, name, number);
		int fd = open(path, O_WRONLY);

		if (fd < 0 || write(fd, "0", 1) != 1)
			return 1;
		close(fd);
	}
	for (char *file = strtok(files, " "); file; file = strtok(NULL, " ")) {
		int fd = open(file, O_RDONLY);

		if (fd < 0 || read(fd, content, sizeof content) <= 0)
			return 1;
		close(fd);
	}
	if (write(ready, "", 1) != 1)
		return 1;
	close(ready);
	for (;;)
		pause();
}

static void cgroups(char **directories, const char *name, int number, int is_end)
{
	for (; *directories; directories++) {
		snprintf(path, sizeof path, "%s/%s-%d", *directories, name, number);
		if (is_end)
			rmdir(path);
		else
			mkdir(path, 0755);
	}
}

int main(int argc, char **argv)
{
	int count = argc > 2 ? atoi(argv[1]) : 0, made, failed = 0;
	pid_t *pids = calloc(count + 1, sizeof *pids);

	for (made = 0; made < count && !failed; made++) {
		int ready[2];
		char said;

		if (pipe(ready))
			return 1;
		cgroups(argv + 3, argv[2], made, 0);
		pids[made] = syscall(SYS_clone, SIGCHLD | CLONE_NEWPID, 0, 0, 0, 0);
		if (!pids[made])
			_exit(stay(argv + 3, argv[2], made, getenv("READ"), ready[1]));
		close(ready[1]);
		failed = pids[made] < 0 || read(ready[0], &said, 1) != 1;
		close(ready[0]);
		printf("%d ", pids[made]);
	}
	puts(failed ? "failed" : "");
	fflush(stdout);
	while (read(0, content, sizeof content) > 0)
		;
	for (int i = 0; i < made; i++)
		if (pids[i] > 0)
			kill(pids[i], SIGKILL);
	while (wait(NULL) > 0)
		;
	for (int i = 0; i < made; i++)
		cgroups(argv + 3, argv[2], i, 1);
	return failed;
}
