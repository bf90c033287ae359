/* Times open + read + close: reader PATH COUNT GAP_US, a line of nanoseconds each. Static: it runs in containers. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

static long now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

int main(int argc, char **argv)
{
	int count = argc > 3 ? atoi(argv[2]) : 0, gap = argc > 3 ? atoi(argv[3]) : 0;
	long *taken = calloc(count ? count : 1, sizeof *taken);

	for (int i = 0; i < count; i++) {
		long before = now();
		int fd = open(argv[1], O_RDONLY);

		if (fd < 0 || read(fd, buffer, sizeof buffer) <= 0)
			return 1;
		close(fd);
		taken[i] = now() - before;
		if (gap)
			usleep(gap);
	}
	for (int i = 0; i < count; i++)
		printf("%ld\n", taken[i]);
	return 0;
}
