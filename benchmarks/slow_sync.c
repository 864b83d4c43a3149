/* Every sync takes as long as on an SD card. LD_PRELOAD it; SLOW_SYNC_US says how long. `slow_syncs` counts. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdlib.h>
#include <unistd.h>

long slow_syncs;

static int sync_slowly(const char *name, int fd)
{
    const char *us = getenv("SLOW_SYNC_US");
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);

    slow_syncs++;
    usleep((useconds_t)atoi(us ? us : "10000"));
    return real(fd);
}

int fsync(int fd) { return sync_slowly("fsync", fd); }
int fdatasync(int fd) { return sync_slowly("fdatasync", fd); }
