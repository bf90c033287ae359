/* Times open + read + close: reader PATH READERS MS GAP_US. It says "ready", waits for a line, has READERS processes read
 * for MS milliseconds, and prints a line of nanoseconds for each reading. Static: it runs in containers. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MOST (1 << 16) /* readings of one process */

static char buffer[1 << 16];

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

static int readings(const char *path, long *taken, long ms, int gap)
{
	long end = now() + ms * 1000000L, before;
	int count = 0;

	while ((before = now()) < end && count < MOST) {
		int fd = open(path, O_RDONLY);

		if (fd < 0 || read(fd, buffer, sizeof buffer) <= 0)
			return 1;
		close(fd);
		taken[count++] = now() - before;
		if (gap)
			usleep(gap);
	}
	return 0;
}

int main(int argc, char **argv)
{
	int readers = argc > 4 ? atoi(argv[2]) : 0, gate[2], status, failed = !readers;
	size_t size = (size_t)readers * MOST * sizeof(long);
	long *taken = mmap(NULL, size ? size : 1, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (taken == MAP_FAILED || pipe(gate))
		return 1;
	for (int i = 0; i < readers; i++)
		if (!fork()) {
			close(gate[1]);
			if (read(gate[0], buffer, 1) < 0)
				_exit(1);
			_exit(readings(argv[1], taken + (size_t)i * MOST, atol(argv[3]), atoi(argv[4])));
		}
	puts("ready");
	fflush(stdout);
	if (!fgets(buffer, sizeof buffer, stdin))
		failed = 1;
	close(gate[1]);
	while (wait(&status) > 0)
		failed |= status != 0;
	for (int i = 0; i < readers; i++)
		for (int n = 0; n < MOST && taken[(size_t)i * MOST + n]; n++)
			printf("%ld\n", taken[(size_t)i * MOST + n]);
	return failed;
}
