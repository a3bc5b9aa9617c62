/* Preloaded into the server under test: ends it, as a power cut would, before or in the middle of its n-th write.
 *
 * A write is a call that leaves a trace outside of the process: on a regular file (not stdout or stderr), in a
 * directory, or on a socket. The test shares a page with the server (the file that CRASH_PAGE names): it sets
 * `at`, the server counts, and says in `where` what it was about to do when it ended. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct page {
    _Atomic int64_t at;    /* which write ends the process; below 1 none does */
    _Atomic int64_t torn;  /* whether half of that write is done first */
    _Atomic int64_t count; /* writes since `at` was set */
    char where[256];
};

static struct page *page;

__attribute__((constructor)) static void attach(void) {
    const char *path = getenv("CRASH_PAGE");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *shared = mmap(NULL, sizeof(struct page), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (shared != MAP_FAILED) page = shared;
    close(file);
}

static int due(void) {
    return page && atomic_load(&page->at) > 0 && atomic_fetch_add(&page->count, 1) + 1 == atomic_load(&page->at);
}

static void end(const char *call, const char *what) {
    snprintf(page->where, sizeof page->where, "%s %s", call, what ? what : "");
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

static void end_at(const char *call, int fd) {
    char link[32], path[200] = "";
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    if (readlink(link, path, sizeof path - 1) < 0) path[0] = 0;
    end(call, path);
}

/* Pipes, events and the log are not counted: what they carry is gone with the process, or is not state. */
static int counts(int fd) {
    struct stat s;
    return page && fd > 2 && fstat(fd, &s) == 0 && (S_ISREG(s.st_mode) || S_ISSOCK(s.st_mode));
}

#define NEXT(name) \
    static __typeof__(&name) next; \
    if (!next) next = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

#define HALF(length) (atomic_load(&page->torn) ? (length) / 2 : 0)

ssize_t write(int fd, const void *bytes, size_t length) {
    NEXT(write);
    if (counts(fd) && due()) {
        if (HALF(length)) next(fd, bytes, HALF(length));
        end_at("write", fd);
    }
    return next(fd, bytes, length);
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t at) {
    NEXT(pwrite64);
    if (counts(fd) && due()) {
        if (HALF(length)) next(fd, bytes, HALF(length), at);
        end_at("pwrite", fd);
    }
    return next(fd, bytes, length, at);
}

ssize_t writev(int fd, const struct iovec *parts, int n) {
    NEXT(writev);
    if (counts(fd) && due()) {
        if (HALF(2)) next(fd, parts, n / 2);
        end_at("writev", fd);
    }
    return next(fd, parts, n);
}

ssize_t send(int fd, const void *bytes, size_t length, int flags) {
    NEXT(send);
    if (counts(fd) && due()) {
        if (HALF(length)) next(fd, bytes, HALF(length), flags);
        end("send", "a socket");
    }
    return next(fd, bytes, length, flags);
}

#define BY_FILE(name, parameters, arguments) \
    int name parameters { \
        NEXT(name); \
        if (counts(fd) && due()) end_at(#name, fd); \
        return next arguments; \
    }

BY_FILE(fsync, (int fd), (fd))
BY_FILE(fdatasync, (int fd), (fd))
BY_FILE(ftruncate64, (int fd, off64_t length), (fd, length))

#define BY_PATH(name, parameters, arguments, path) \
    int name parameters { \
        NEXT(name); \
        if (due()) end(#name, path); \
        return next arguments; \
    }

BY_PATH(rename, (const char *from, const char *to), (from, to), to)
BY_PATH(linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), to)
BY_PATH(unlink, (const char *path), (path), path)
BY_PATH(unlinkat, (int dir, const char *path, int flags), (dir, path, flags), path)
BY_PATH(rmdir, (const char *path), (path), path)
BY_PATH(mkdir, (const char *path, mode_t mode), (path, mode), path)

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        NEXT(name); \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if (flags & O_CREAT && access(path, F_OK) != 0 && due()) end("create", path); \
        return next(path, flags, mode); \
    }

OPEN(open)
OPEN(open64)
