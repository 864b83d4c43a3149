/* A disk that fails on demand: LD_PRELOAD for one process of ours, told what to do through ctypes (tests/faults/disk.py).
 *
 * Counted is every call that changes what is under one directory: writes, syncs, truncations, new files, renames,
 * removals. The one whose turn it is fails with the errno that was asked for; so do, for as long as that was asked
 * for, all that come after it. A failed write has written nothing, a failed sync has synced nothing.
 *
 * It also keeps book of what a power cut would take: the bytes of a write-ahead log (`*-wal`) that were written since
 * its last sync that succeeded.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static char under[PATH_MAX];
static size_t under_length;
static long calls, fail_at, fails_left, fired;
static int error;
static long unsynced;
static char first_failed[PATH_MAX + 32];
static char named[PATH_MAX + 32];

/* From now on, calls under `directory` are counted; `code` is the errno of the failure to come. */
void disk_watch(const char *directory, int code)
{
    snprintf(under, sizeof under, "%s/", directory);
    under_length = strlen(under);
    calls = fail_at = fails_left = fired = unsynced = 0;
    first_failed[0] = 0;
    error = code;
}
/* The `nth` call from now on fails, and the `times - 1` after it too; `times` < 0: until `disk_heals`. */
void disk_will_fail(long nth, long times)
{
    fail_at = calls + nth;
    fails_left = times;
}
void disk_heals(void) { fails_left = 0; }
long disk_calls(void) { return calls; }
int disk_is_well(void) { return !fired || !fails_left; }
long disk_fired(void) { return fired; }
long disk_unsynced(void) { return unsynced; }
const char *disk_first_failed(void) { return first_failed; }
const char *disk_last_call(void) { return named; }

static int is_ours(const char *path)
{
    return under_length && path && strncmp(path, under, under_length) == 0;
}

static const char *path_of(int descriptor)
{
    static char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = 0;
    return path;
}

static int fails(const char *call, const char *path)
{
    calls++;
    snprintf(named, sizeof named, "%s %s", call, path + under_length);
    if (!fail_at || calls < fail_at || fails_left == 0)
        return 0;
    if (fails_left > 0)
        fails_left--;
    if (!fired++)
        memcpy(first_failed, named, sizeof named);
    errno = error;
    return 1;
}

static int is_log(const char *path)
{
    size_t length = strlen(path);
    return length > 4 && strcmp(path + length - 4, "-wal") == 0;
}

#define REAL(result, name, ...)                                                                    \
    static result (*real)(__VA_ARGS__);                                                            \
    if (!real)                                                                                     \
        real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

#define WRITES(name, call, parameters, arguments, ...)                                             \
    ssize_t name parameters                                                                        \
    {                                                                                              \
        REAL(ssize_t, name, __VA_ARGS__);                                                          \
        const char *path = under_length ? path_of(descriptor) : "";                                \
        if (!is_ours(path))                                                                        \
            return real arguments;                                                                 \
        if (fails(call, path))                                                                     \
            return -1;                                                                             \
        ssize_t written = real arguments;                                                          \
        if (written > 0 && is_log(path))                                                           \
            unsynced += written;                                                                   \
        return written;                                                                            \
    }
WRITES(write, "write", (int descriptor, const void *bytes, size_t count), (descriptor, bytes, count), int, const void *, size_t)
WRITES(pwrite, "write", (int descriptor, const void *bytes, size_t count, off_t at), (descriptor, bytes, count, at), int, const void *, size_t, off_t)
WRITES(pwrite64, "write", (int descriptor, const void *bytes, size_t count, off64_t at), (descriptor, bytes, count, at), int, const void *, size_t, off64_t)

#define SYNCS(name)                                                                                \
    int name(int descriptor)                                                                       \
    {                                                                                              \
        REAL(int, name, int);                                                                      \
        const char *path = under_length ? path_of(descriptor) : "";                                \
        if (!is_ours(path) && !(under_length && strncmp(path, under, under_length - 1) == 0))      \
            return real(descriptor);                                                               \
        if (fails("sync", strlen(path) < under_length ? under : path))                             \
            return -1;                                                                             \
        int result = real(descriptor);                                                             \
        if (result == 0 && is_log(path))                                                           \
            unsynced = 0;                                                                          \
        return result;                                                                             \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define TRUNCATES(name, type)                                                                      \
    int name(int descriptor, type length)                                                          \
    {                                                                                              \
        REAL(int, name, int, type);                                                                \
        const char *path = under_length ? path_of(descriptor) : "";                                \
        return is_ours(path) && fails("truncate", path) ? -1 : real(descriptor, length);           \
    }
TRUNCATES(ftruncate, off_t)
TRUNCATES(ftruncate64, off64_t)

/* Only what makes a file, or, where nothing may be written any more, what opens one for writing. */
static int may_not_open(const char *path, int flags)
{
    if (!is_ours(path) || (flags & O_ACCMODE) == O_RDONLY)
        return 0;
    int exists = faccessat(AT_FDCWD, path, F_OK, 0) == 0;
    if (exists && error != EROFS)
        return 0;
    return fails("open", path);
}

#define OPENS(name)                                                                                \
    int name(const char *path, int flags, ...)                                                     \
    {                                                                                              \
        REAL(int, name, const char *, int, ...);                                                   \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                    \
        va_end(rest);                                                                              \
        return may_not_open(path, flags) ? -1 : real(path, flags, mode);                           \
    }
OPENS(open)
OPENS(open64)

#define OPENS_AT(name)                                                                             \
    int name(int directory, const char *path, int flags, ...)                                      \
    {                                                                                              \
        REAL(int, name, int, const char *, int, ...);                                              \
        va_list rest;                                                                              \
        va_start(rest, flags);                                                                     \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                    \
        va_end(rest);                                                                              \
        return may_not_open(path, flags) ? -1 : real(directory, path, flags, mode);                \
    }
OPENS_AT(openat)
OPENS_AT(openat64)

int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);
    return is_ours(to) && fails("rename", to) ? -1 : real(from, to);
}
int unlink(const char *path)
{
    REAL(int, unlink, const char *);
    int counted = is_ours(path) && error != ENOSPC && error != EDQUOT; /* what gives room back goes on a full disk */
    return counted && fails("unlink", path) ? -1 : real(path);
}
int mkdir(const char *path, mode_t mode)
{
    REAL(int, mkdir, const char *, mode_t);
    return is_ours(path) && fails("mkdir", path) ? -1 : real(path, mode);
}
