/* A service's side of its manager, static: runs in any root file system.
 *
 *   say MESSAGE…     sends each to $NOTIFY_SOCKET, with a descriptor of its own attached
 *   say --accept     answers one connection on the first activation socket with $LISTEN_FDNAMES and its pid
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int accept_one(void)
{
    const char *count = getenv("LISTEN_FDS"), *pid = getenv("LISTEN_PID"), *names = getenv("LISTEN_FDNAMES");

    if (!count || !pid || atoi(pid) != getpid())
        return fprintf(stderr, "not for me: LISTEN_PID=%s, I am %d\n", pid ? pid : "", getpid()), 1;
    int fd = accept(3, NULL, NULL);
    if (fd < 0)
        return perror("accept"), 1;
    dprintf(fd, "%s of %s for %d\n", names ? names : "?", count, getpid());
    return close(fd), 0;
}

int main(int argc, char **argv)
{
    const char *path = getenv("NOTIFY_SOCKET");

    if (argc == 2 && !strcmp(argv[1], "--accept"))
        return accept_one();
    if (!path)
        return fprintf(stderr, "no NOTIFY_SOCKET\n"), 1;
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    strncpy(name.sun_path, path, sizeof name.sun_path - 1);
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    for (int i = 1; i < argc; i++) {
        struct iovec text = {argv[i], strlen(argv[i])};
        char room[CMSG_SPACE(sizeof(int))] = {0};
        struct msghdr message = {.msg_name = &name, .msg_namelen = sizeof name, .msg_iov = &text, .msg_iovlen = 1,
                                 .msg_control = room, .msg_controllen = sizeof room};
        struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &(int){0}, sizeof(int));
        if (sendmsg(fd, &message, 0) < 0)
            return fprintf(stderr, "%s: %s\n", path, strerror(errno)), 1;
    }
    return 0;
}
