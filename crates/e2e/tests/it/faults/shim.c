/* Makes the disk under a queue file fail as files in $SHIM say:
 * `full`: writes answer ENOSPC; `sync`: fsync answers EIO; `lazy`: it answers at
 * once, and does nothing. Loaded with
 * LD_PRELOAD, for tests. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static int asked(const char *what) {
    char path[4096];
    const char *folder = getenv("SHIM");
    if (!folder) return 0;
    snprintf(path, sizeof path, "%s/%s", folder, what);
    return access(path, F_OK) == 0;
}

static int ours(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    /* SQLite makes the index of its log anew in the room that it had. */
    if (strstr(path, "-shm")) return 0;
    return strstr(path, "queue.db") != NULL || strstr(path, "spool.db") != NULL;
}

#define REAL(name, type) static __typeof__(type) real; if (!real) real = (__typeof__(type))dlsym(RTLD_NEXT, name)

ssize_t write(int fd, const void *data, size_t size) {
    REAL("write", ssize_t (*)(int, const void *, size_t));
    if (asked("full") && ours(fd)) { errno = ENOSPC; return -1; }
    return real(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL("pwrite64", ssize_t (*)(int, const void *, size_t, off64_t));
    if (asked("full") && ours(fd)) { errno = ENOSPC; return -1; }
    return real(fd, data, size, at);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL("pwrite", ssize_t (*)(int, const void *, size_t, off_t));
    if (asked("full") && ours(fd)) { errno = ENOSPC; return -1; }
    return real(fd, data, size, at);
}

int fsync(int fd) {
    REAL("fsync", int (*)(int));
    if (asked("sync") && ours(fd)) { errno = EIO; return -1; }
    if (asked("lazy") && ours(fd)) return 0;
    return real(fd);
}

int fdatasync(int fd) {
    REAL("fdatasync", int (*)(int));
    if (asked("sync") && ours(fd)) { errno = EIO; return -1; }
    if (asked("lazy") && ours(fd)) return 0;
    return real(fd);
}
