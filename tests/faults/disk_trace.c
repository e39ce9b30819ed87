/* Notes every write, truncation, creation, removal and fsync under one folder, in the order they happen.
 *
 * Preloaded into a process with LD_PRELOAD. ENDCAP_TRACE_FOLDER is the folder (an absolute path), ENDCAP_TRACE the file
 * the notes go to. A note is: kind (1 byte), length of the path (2), offset (8), length of the data (4), path, data;
 * numbers little-endian. Kinds: w write, t truncate, c create, u unlink, s fsync, d fsync of a folder, f fsync that
 * failed. ENDCAP_FSYNC_FAILS is how many fsyncs in a thousand fail with EIO and sync nothing, ENDCAP_FSYNC_SEED which.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DESCRIPTORS_MAX 4096

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *path_of[DESCRIPTORS_MAX];
static int trace_fd = -1;
static const char *folder;
static long fails_per_mille = 0;
static uint64_t chance = 88172645463325252ULL;

/* xorshift64: Marsaglia, Xorshift RNGs, 2003 */
static int unlucky(void) {
    chance ^= chance << 13;
    chance ^= chance >> 7;
    chance ^= chance << 17;
    return (long)((chance >> 11) % 1000) < fails_per_mille;
}

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

__attribute__((constructor)) static void begin(void) {
    const char *trace = getenv("ENDCAP_TRACE");
    folder = getenv("ENDCAP_TRACE_FOLDER");
    if (getenv("ENDCAP_FSYNC_FAILS") != NULL) fails_per_mille = atol(getenv("ENDCAP_FSYNC_FAILS"));
    if (getenv("ENDCAP_FSYNC_SEED") != NULL) chance ^= (uint64_t)atol(getenv("ENDCAP_FSYNC_SEED")) * 0x9E3779B97F4A7C15ULL;
    if (trace == NULL || folder == NULL) return;
    int (*open_)(const char *, int, ...) = real("open64");
    trace_fd = open_(trace, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_ours(const char *path) { return trace_fd >= 0 && path != NULL && strncmp(path, folder, strlen(folder)) == 0; }

static void note(char kind, const char *path, int64_t offset, const void *data, uint32_t length) {
    ssize_t (*write_)(int, const void *, size_t) = real("write");
    uint16_t path_length = (uint16_t)strlen(path);
    size_t size = 15 + path_length + length;
    char *buffer = malloc(size);
    if (buffer == NULL) abort();
    buffer[0] = kind;
    memcpy(buffer + 1, &path_length, 2);
    memcpy(buffer + 3, &offset, 8);
    memcpy(buffer + 11, &length, 4);
    memcpy(buffer + 15, path, path_length);
    if (length) memcpy(buffer + 15 + path_length, data, length);
    if (write_(trace_fd, buffer, size) != (ssize_t)size) abort();
    free(buffer);
}

static int opened(int fd, const char *path, int flags, int existed) {
    if (fd < 0 || fd >= DESCRIPTORS_MAX || !is_ours(path)) return fd;
    pthread_mutex_lock(&lock);
    free(path_of[fd]);
    path_of[fd] = strdup(path);
    if ((flags & O_CREAT) && !existed) note('c', path, 0, NULL, 0);
    if (flags & O_TRUNC) note('t', path, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

#define OPEN(NAME)                                                                 \
    int NAME(const char *path, int flags, ...) {                                   \
        int (*next)(const char *, int, ...) = real(#NAME);                         \
        va_list more;                                                              \
        va_start(more, flags);                                                     \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;                \
        va_end(more);                                                              \
        int existed = is_ours(path) && access(path, F_OK) == 0;                    \
        return opened(next(path, flags, mode), path, flags, existed);              \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(NAME)                                                               \
    int NAME(int at, const char *path, int flags, ...) {                           \
        int (*next)(int, const char *, int, ...) = real(#NAME);                    \
        va_list more;                                                              \
        va_start(more, flags);                                                     \
        mode_t mode = (flags & O_CREAT) ? va_arg(more, mode_t) : 0;                \
        va_end(more);                                                              \
        int existed = is_ours(path) && access(path, F_OK) == 0;                    \
        return opened(next(at, path, flags, mode), path, flags, existed);          \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    int (*next)(int) = real("close");
    pthread_mutex_lock(&lock);
    if (fd >= 0 && fd < DESCRIPTORS_MAX) {
        free(path_of[fd]);
        path_of[fd] = NULL;
    }
    pthread_mutex_unlock(&lock);
    return next(fd);
}

static const char *known(int fd) { return fd >= 0 && fd < DESCRIPTORS_MAX ? path_of[fd] : NULL; }

#define PWRITE(NAME)                                                               \
    ssize_t NAME(int fd, const void *data, size_t length, off64_t offset) {        \
        ssize_t (*next)(int, const void *, size_t, off64_t) = real(#NAME);         \
        pthread_mutex_lock(&lock);                                                 \
        ssize_t done = next(fd, data, length, offset);                             \
        if (done > 0 && known(fd)) note('w', known(fd), offset, data, (uint32_t)done); \
        pthread_mutex_unlock(&lock);                                               \
        return done;                                                               \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

ssize_t write(int fd, const void *data, size_t length) {
    ssize_t (*next)(int, const void *, size_t) = real("write");
    if (!known(fd)) return next(fd, data, length);
    pthread_mutex_lock(&lock);
    int64_t offset = (fcntl(fd, F_GETFL) & O_APPEND) ? lseek64(fd, 0, SEEK_END) : lseek64(fd, 0, SEEK_CUR);
    ssize_t done = next(fd, data, length);
    if (done > 0) note('w', known(fd), offset, data, (uint32_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

#define TRUNCATE(NAME)                                                             \
    int NAME(int fd, off64_t length) {                                             \
        int (*next)(int, off64_t) = real(#NAME);                                   \
        pthread_mutex_lock(&lock);                                                 \
        int done = next(fd, length);                                               \
        if (done == 0 && known(fd)) note('t', known(fd), length, NULL, 0);         \
        pthread_mutex_unlock(&lock);                                               \
        return done;                                                               \
    }
TRUNCATE(ftruncate)
TRUNCATE(ftruncate64)

#define SYNC(NAME)                                                                 \
    int NAME(int fd) {                                                             \
        int (*next)(int) = real(#NAME);                                            \
        struct stat about;                                                         \
        pthread_mutex_lock(&lock);                                                 \
        if (known(fd) && unlucky()) {                                              \
            note('f', known(fd), 0, NULL, 0);                                      \
            pthread_mutex_unlock(&lock);                                           \
            errno = EIO;                                                           \
            return -1;                                                             \
        }                                                                          \
        pthread_mutex_unlock(&lock);                                               \
        int done = next(fd);                                                       \
        pthread_mutex_lock(&lock);                                                 \
        if (done == 0 && known(fd))                                                \
            note(fstat(fd, &about) == 0 && S_ISDIR(about.st_mode) ? 'd' : 's', known(fd), 0, NULL, 0); \
        pthread_mutex_unlock(&lock);                                               \
        return done;                                                               \
    }
SYNC(fsync)
SYNC(fdatasync)

int unlink(const char *path) {
    int (*next)(const char *) = real("unlink");
    int done = next(path);
    if (done == 0 && is_ours(path)) {
        pthread_mutex_lock(&lock);
        note('u', path, 0, NULL, 0);
        pthread_mutex_unlock(&lock);
    }
    return done;
}
