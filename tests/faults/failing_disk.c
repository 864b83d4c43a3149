/* A disk that fails on demand: LD_PRELOAD for one process of ours, told what to do through ctypes (tests/faults/disk.py).
 *
 * Counted is every call that changes what is under one directory: writes, syncs, truncations, new files, renames,
 * removals. The one whose turn it is fails with the errno that was asked for; so do, for as long as that was asked
 * for, all that come after it. A failed write has written nothing, a failed sync has synced nothing.
 *
 * It also keeps an image of what a power cut would leave, in a directory beside: a page that was written gets there with
 * the next sync of its file that succeeds. After a sync that failed it does not get there any more, unless it is written
 * again: so does Linux, which takes such a page for clean (see fsync(2), "EIO"). Names and sizes are taken for durable
 * at once: what is looked for here are bytes.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

static char under[PATH_MAX];
static size_t under_length;
static long calls, fail_at, fails_left, fired;
static int error;

#define PAGE 4096
#define FILES 64
#define PAGES 16384
static char image[PATH_MAX];
static struct { char path[PATH_MAX]; unsigned char dirty[PAGES]; } files[FILES];
static int known;
static char first_failed[PATH_MAX + 32];
static char named[PATH_MAX + 32];

/* From now on, calls under `directory` are counted; `code` is the errno of the failure to come. */
void disk_watch(const char *directory, const char *images, int code)
{
    snprintf(image, sizeof image, "%s", images);
    snprintf(under, sizeof under, "%s/", directory);
    under_length = strlen(under);
    calls = fail_at = fails_left = fired = known = 0;
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

#define REAL(result, name, ...)                                                                    \
    static result (*real)(__VA_ARGS__);                                                            \
    if (!real)                                                                                     \
        real = (result (*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name)

/* Where the image of a file is: its name, in a directory without directories. */
static const char *image_of(const char *path)
{
    static char found[2 * PATH_MAX];
    const char *name = strrchr(path, '/');
    snprintf(found, sizeof found, "%s%s", image, name ? name : path);
    return found;
}

static unsigned char *dirty_pages_of(const char *path)
{
    int n = 0;
    while (n < known && strcmp(files[n].path, path))
        n++;
    if (n == FILES)
        return 0;
    if (n == known) {
        snprintf(files[known++].path, PATH_MAX, "%s", path);
        memset(files[n].dirty, 0, PAGES);
    }
    return files[n].dirty;
}

static void written(const char *path, off_t at, ssize_t count)
{
    unsigned char *dirty = dirty_pages_of(path);
    for (off_t page = at / PAGE; dirty && count > 0 && page <= (at + count - 1) / PAGE && page < PAGES; page++)
        dirty[page] = 1;
}

/* The harness itself failed: that is no finding, and must not look like one. */
static void give_up(const char *what)
{
    dprintf(2, "failing_disk: could not %s: %s\n", what, strerror(errno));
    abort();
}

static void synced(const char *path, int descriptor, int succeeded)
{
    static char bytes[PAGE];
    unsigned char *dirty = dirty_pages_of(path);
    struct stat seen;
    if (!dirty)
        return;
    if (succeeded && fstat(descriptor, &seen) == 0 && S_ISREG(seen.st_mode)) {
        REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);
        int to = syscall(SYS_openat, AT_FDCWD, image_of(path), O_WRONLY | O_CREAT, 0600);
        int from = syscall(SYS_openat, AT_FDCWD, path, O_RDONLY);
        for (off_t page = 0; page < PAGES; page++) {
            ssize_t count = dirty[page] ? pread(from, bytes, PAGE, page * PAGE) : 0;
            if (count > 0 && real(to, bytes, count, page * PAGE) != count)
                give_up("write a page of the image");
        }
        if (syscall(SYS_ftruncate, to, seen.st_size))
            give_up("cut the image");
        close(from);
        close(to);
    }
    memset(dirty, 0, PAGES);
}

#define WRITES(name, where, parameters, arguments, ...)                                            \
    ssize_t name parameters                                                                        \
    {                                                                                              \
        REAL(ssize_t, name, __VA_ARGS__);                                                          \
        const char *path = under_length ? path_of(descriptor) : "";                                \
        if (!is_ours(path))                                                                        \
            return real arguments;                                                                 \
        if (fails("write", path))                                                                     \
            return -1;                                                                             \
        ssize_t done = real arguments;                                                             \
        written(path, where, done);                                                                \
        return done;                                                                               \
    }
WRITES(write, lseek(descriptor, 0, SEEK_CUR) - done, (int descriptor, const void *bytes, size_t count), (descriptor, bytes, count), int, const void *, size_t)
WRITES(pwrite, at, (int descriptor, const void *bytes, size_t count, off_t at), (descriptor, bytes, count, at), int, const void *, size_t, off_t)
WRITES(pwrite64, at, (int descriptor, const void *bytes, size_t count, off64_t at), (descriptor, bytes, count, at), int, const void *, size_t, off64_t)

#define SYNCS(name)                                                                                \
    int name(int descriptor)                                                                       \
    {                                                                                              \
        REAL(int, name, int);                                                                      \
        const char *path = under_length ? path_of(descriptor) : "";                                \
        if (!is_ours(path) && !(under_length && strncmp(path, under, under_length - 1) == 0))      \
            return real(descriptor);                                                               \
        int failed = fails("sync", strlen(path) < under_length ? under : path);                    \
        int result = failed ? -1 : real(descriptor);                                               \
        if (is_ours(path))                                                                         \
            synced(path, descriptor, result == 0);                                                 \
        if (failed)                                                                                \
            errno = error;                                                                         \
        return result;                                                                             \
    }
SYNCS(fsync)
SYNCS(fdatasync)

#define TRUNCATES(name, type)                                                                      \
    int name(int descriptor, type length)                                                          \
    {                                                                                              \
        REAL(int, name, int, type);                                                                \
        const char *path = under_length ? path_of(descriptor) : "";                                \
        if (is_ours(path) && fails("truncate", path))                                              \
            return -1;                                                                             \
        int result = real(descriptor, length);                                                     \
        if (result == 0 && is_ours(path))                                                          \
            syscall(SYS_truncate, image_of(path), length);                                         \
        return result;                                                                             \
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
    if (is_ours(to) && fails("rename", to))
        return -1;
    int result = real(from, to);
    if (result == 0 && is_ours(to)) {
        char before[2 * PATH_MAX];
        snprintf(before, sizeof before, "%s", image_of(from));
        syscall(SYS_renameat2, AT_FDCWD, before, AT_FDCWD, image_of(to), 0);
        unsigned char *dirty = dirty_pages_of(from), *now = dirty_pages_of(to);
        if (dirty && now) {
            memcpy(now, dirty, PAGES);
            memset(dirty, 0, PAGES);
        }
    }
    return result;
}
int unlink(const char *path)
{
    REAL(int, unlink, const char *);
    int counted = is_ours(path) && error != ENOSPC && error != EDQUOT; /* what gives room back goes on a full disk */
    if (counted && fails("unlink", path))
        return -1;
    int result = real(path);
    if (result == 0 && is_ours(path)) {
        unsigned char *dirty = dirty_pages_of(path);
        if (dirty)
            memset(dirty, 0, PAGES);
        real(image_of(path));
    }
    return result;
}
int mkdir(const char *path, mode_t mode)
{
    REAL(int, mkdir, const char *, mode_t);
    return is_ours(path) && fails("mkdir", path) ? -1 : real(path, mode);
}
