/* Loaded before the C library, it makes every flush to disk last FLUSH_DELAY_US microseconds longer: a slower disk. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

static int slowly(long call, int fd) {
    const char *delay = getenv("FLUSH_DELAY_US");
    if (delay != NULL) usleep((useconds_t)atol(delay));
    return (int)syscall(call, fd);
}

int fsync(int fd) { return slowly(SYS_fsync, fd); }
int fdatasync(int fd) { return slowly(SYS_fdatasync, fd); }
