/* Writes down what a process does to the files below a folder, for powercut.py to play back.
 *
 * Preloaded (LD_PRELOAD). POWERCUT_ROOT is the folder, POWERCUT_LOG the file of records. A record
 * is written behind what it tells of, but for two, which are written before: the beginning of a
 * sync (only what came before it is made durable) and an answer that promises a message (the
 * promise holds from then on, though the client has yet to read it). So the order of the records
 * is never kinder to the program than what happened.
 *
 * A file that is mapped into memory is not followed: SQLite maps its -shm file alone, which is made
 * anew after a crash. A call that would write past us (sendfile, copy_file_range, …) ends the
 * process.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, CLOSE, WRITE, TRUNCATE, SYNC_BEGIN, SYNC_END, RENAME, UNLINK, MKDIR, RMDIR, LINK,
       PROMISE };

struct record {
    uint8_t kind;
    uint8_t created;
    uint16_t first, pad;    /* octets of the first path or of the text behind this */
    int32_t pid, fd;
    int64_t offset;         /* of a write; the size, of a truncation; which sync, of a sync */
    uint32_t second;        /* octets of the second path, or of what was written */
} __attribute__((packed));

#define MOST 65536
static unsigned char tracked[MOST];
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int64_t syncs;

__attribute__((constructor)) static void begin(void)
{
    const char *where = getenv("POWERCUT_LOG"), *folder = getenv("POWERCUT_ROOT");
    if (!where || !folder || !realpath(folder, root))
        return;
    root_length = strlen(root);
    log_fd = syscall(SYS_openat, AT_FDCWD, where, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    int high = fcntl(log_fd, F_DUPFD_CLOEXEC, 60000);  /* out of the way of the program's own */
    if (high >= 0) {
        syscall(SYS_close, log_fd);
        log_fd = high;
    }
}

static void fail(const char *why)
{
    dprintf(2, "powercut: %s\n", why);
    _exit(99);
}

static void tell(int kind, int fd, int created, int64_t offset, const char *first,
                 const void *second, size_t length)
{
    struct record record = {
        .kind = kind, .created = created, .first = first ? strlen(first) : 0, .pid = getpid(),
        .fd = fd, .offset = offset, .second = length,
    };
    struct iovec parts[3] = {
        {&record, sizeof record}, {(void *)first, record.first}, {(void *)second, length},
    };
    ssize_t total = sizeof record + record.first + length;
    int saved = errno;
    pthread_mutex_lock(&lock);
    ssize_t written = syscall(SYS_writev, log_fd, parts, 3);
    pthread_mutex_unlock(&lock);
    errno = saved;
    if (written != total)
        fail("cannot write the log");
}

static int is_tracked(int fd)
{
    return log_fd >= 0 && fd >= 0 && fd < MOST && tracked[fd];
}

/* The whole name, if it is below the root; the last part need not exist. */
static int below(int folder, const char *path, char *whole)
{
    char joined[PATH_MAX * 2], parent[PATH_MAX];
    if (log_fd < 0 || !path)
        return 0;
    if (path[0] == '/')
        snprintf(joined, sizeof joined, "%s", path);
    else {
        char link[64];
        ssize_t n;
        if (folder == AT_FDCWD)
            snprintf(link, sizeof link, "/proc/self/cwd");
        else
            snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        if ((n = readlink(link, parent, sizeof parent - 1)) < 0)
            return 0;
        parent[n] = 0;
        snprintf(joined, sizeof joined, "%s/%s", parent, path);
    }
    size_t length = strlen(joined);
    while (length > 1 && joined[length - 1] == '/')
        joined[--length] = 0;
    char *last = strrchr(joined, '/');
    if (!last)
        return 0;
    *last++ = 0;
    int saved = errno;
    char *found = realpath(*joined ? joined : "/", parent);
    errno = saved;
    if (!found)
        return 0;
    if (snprintf(whole, PATH_MAX, "%s/%s", strcmp(parent, "/") ? parent : "", last) >= PATH_MAX)
        fail("a name is too long");
    return !strncmp(whole, root, root_length) && (whole[root_length] == '/' || !whole[root_length]);
}


static int opened(int fd, const char *whole, int flags, int existed)
{
    struct stat about;
    if (fd < 0)
        return fd;
    if (fd >= MOST)
        fail("too many files");
    if (fstat(fd, &about) || !(S_ISREG(about.st_mode) || S_ISDIR(about.st_mode)))
        return fd;
    tell(OPEN, fd, !existed, 0, whole, NULL, 0);
    tracked[fd] = 1;
    if (existed && (flags & O_TRUNC))
        tell(TRUNCATE, fd, 0, 0, NULL, NULL, 0);
    return fd;
}

static int open_at(int folder, const char *path, int flags, mode_t mode)
{
    char whole[PATH_MAX];
    if (!below(folder, path, whole))
        return syscall(SYS_openat, folder, path, flags, mode);
    if ((flags & O_TMPFILE) == O_TMPFILE)
        fail("O_TMPFILE is not followed");
    /* Creation and its record must not be parted by another thread's sync of the folder. */
    int saved = errno, existed = !access(whole, F_OK);
    errno = saved;
    return opened(syscall(SYS_openat, folder, path, flags, mode), whole, flags, existed);
}

#define MODE(flags, mode) \
    mode_t mode = 0; \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) { \
        va_list rest; \
        va_start(rest, flags); \
        mode = va_arg(rest, mode_t); \
        va_end(rest); \
    }

int open(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags, mode) return open_at(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags, mode) return open_at(folder, path, flags, mode); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags, mode) return open_at(folder, path, flags | O_LARGEFILE, mode); }
/* What those become that were compiled with _FORTIFY_SOURCE. */
int __open_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_at(AT_FDCWD, path, flags | O_LARGEFILE, 0); }
int __openat_2(int folder, const char *path, int flags) { return open_at(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return open_at(folder, path, flags | O_LARGEFILE, 0); }
int creat(const char *path, mode_t mode) { return open_at(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

int close(int fd)
{
    if (fd == log_fd && fd >= 0) {
        errno = EBADF;
        return -1;
    }
    if (is_tracked(fd)) {
        tracked[fd] = 0;
        tell(CLOSE, fd, 0, 0, NULL, NULL, 0);
    }
    return syscall(SYS_close, fd);
}

/* Promises: "queued as ID" in what is sent to a client. */
static void promise(const void *octets, size_t length)
{
    const char *text = octets, *end = text + length, *found;
    while (log_fd >= 0 && (found = memmem(text, end - text, "queued as ", 10))) {
        char id[64];
        size_t n = 0;
        for (text = found + 10; text < end && *text > ' ' && n < sizeof id - 1; text++)
            id[n++] = *text;
        id[n] = 0;
        tell(PROMISE, -1, 0, 0, id, NULL, 0);
    }
}

ssize_t send(int fd, const void *octets, size_t length, int flags)
{
    promise(octets, length);
    return syscall(SYS_sendto, fd, octets, length, flags, NULL, 0);
}

ssize_t sendto(int fd, const void *octets, size_t length, int flags, const struct sockaddr *to, socklen_t size)
{
    promise(octets, length);
    return syscall(SYS_sendto, fd, octets, length, flags, to, size);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    for (size_t i = 0; i < message->msg_iovlen; i++)
        promise(message->msg_iov[i].iov_base, message->msg_iov[i].iov_len);
    return syscall(SYS_sendmsg, fd, message, flags);
}

ssize_t write(int fd, const void *octets, size_t length)
{
    ssize_t written = syscall(SYS_write, fd, octets, length);
    if (written > 0 && is_tracked(fd))
        tell(WRITE, fd, 0, lseek(fd, 0, SEEK_CUR) - written, NULL, octets, written);
    return written;
}

static ssize_t write_at(int fd, const void *octets, size_t length, off_t offset)
{
    ssize_t written = syscall(SYS_pwrite64, fd, octets, length, offset);
    if (written > 0 && is_tracked(fd))
        tell(WRITE, fd, 0, offset, NULL, octets, written);
    return written;
}

ssize_t pwrite(int fd, const void *octets, size_t length, off_t offset) { return write_at(fd, octets, length, offset); }
ssize_t pwrite64(int fd, const void *octets, size_t length, off64_t offset) { return write_at(fd, octets, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (!is_tracked(fd)) {
        for (int i = 0; i < count; i++)
            promise(parts[i].iov_base, parts[i].iov_len);
        return syscall(SYS_writev, fd, parts, count);
    }
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t written = write(fd, parts[i].iov_base, parts[i].iov_len);
        if (written < 0)
            return total ? total : written;
        total += written;
        if ((size_t)written < parts[i].iov_len)
            break;
    }
    return total;
}

static int truncate_to(int fd, off_t size)
{
    int result = syscall(SYS_ftruncate, fd, size);
    if (!result && is_tracked(fd))
        tell(TRUNCATE, fd, 0, size, NULL, NULL, 0);
    return result;
}

int ftruncate(int fd, off_t size) { return truncate_to(fd, size); }
int ftruncate64(int fd, off64_t size) { return truncate_to(fd, size); }

static int synced(int fd, long number)
{
    if (!is_tracked(fd))
        return syscall(number, fd);
    int64_t which = __atomic_add_fetch(&syncs, 1, __ATOMIC_SEQ_CST);
    tell(SYNC_BEGIN, fd, 0, which, NULL, NULL, 0);
    int result = syscall(number, fd);
    if (!result)
        tell(SYNC_END, fd, 0, which, NULL, NULL, 0);
    return result;
}

int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

static int rename_at(int from_folder, const char *from, int to_folder, const char *to, unsigned flags)
{
    char old[PATH_MAX], new[PATH_MAX];
    int result = syscall(SYS_renameat2, from_folder, from, to_folder, to, flags);
    if (result)
        return result;
    int ours = below(to_folder, to, new);
    if (ours != below(from_folder, from, old))
        fail("a rename into or out of the folder is not followed");
    if (ours)
        tell(RENAME, -1, 0, 0, old, new, strlen(new));
    return 0;
}

int rename(const char *from, const char *to) { return rename_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int renameat(int f, const char *from, int t, const char *to) { return rename_at(f, from, t, to, 0); }
int renameat2(int f, const char *from, int t, const char *to, unsigned flags) { return rename_at(f, from, t, to, flags); }

static int link_at(int f, const char *from, int t, const char *to, int flags)
{
    char old[PATH_MAX], new[PATH_MAX];
    int result = syscall(SYS_linkat, f, from, t, to, flags);
    if (!result && below(t, to, new)) {
        if (!below(f, from, old))
            fail("a link into the folder is not followed");
        tell(LINK, -1, 0, 0, old, new, strlen(new));
    }
    return result;
}

int link(const char *from, const char *to) { return link_at(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int f, const char *from, int t, const char *to, int flags) { return link_at(f, from, t, to, flags); }

static int unlink_at(int folder, const char *path, int flags)
{
    char whole[PATH_MAX];
    int ours = below(folder, path, whole), result = syscall(SYS_unlinkat, folder, path, flags);
    if (!result && ours)
        tell(flags & AT_REMOVEDIR ? RMDIR : UNLINK, -1, 0, 0, whole, NULL, 0);
    return result;
}

int unlink(const char *path) { return unlink_at(AT_FDCWD, path, 0); }
int unlinkat(int folder, const char *path, int flags) { return unlink_at(folder, path, flags); }
int rmdir(const char *path) { return unlink_at(AT_FDCWD, path, AT_REMOVEDIR); }

static int mkdir_at(int folder, const char *path, mode_t mode)
{
    char whole[PATH_MAX];
    int result = syscall(SYS_mkdirat, folder, path, mode);
    if (!result && below(folder, path, whole))
        tell(MKDIR, -1, 0, 0, whole, NULL, 0);
    return result;
}

int mkdir(const char *path, mode_t mode) { return mkdir_at(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return mkdir_at(folder, path, mode); }

/* What writes without our seeing it. Allocation beyond the end would show in the size. */
#define NOT_FOLLOWED(name, fd, number, ...) \
    do { \
        if (is_tracked(fd)) \
            fail(name " is not followed"); \
        return syscall(number, __VA_ARGS__); \
    } while (0)

int fallocate(int fd, int mode, off_t at, off_t n) { NOT_FOLLOWED("fallocate", fd, SYS_fallocate, fd, mode, at, n); }
int fallocate64(int fd, int mode, off64_t at, off64_t n) { NOT_FOLLOWED("fallocate", fd, SYS_fallocate, fd, mode, at, n); }
ssize_t sendfile(int to, int from, off_t *at, size_t n) { NOT_FOLLOWED("sendfile", to, SYS_sendfile, to, from, at, n); }
ssize_t sendfile64(int to, int from, off64_t *at, size_t n) { NOT_FOLLOWED("sendfile", to, SYS_sendfile, to, from, at, n); }
ssize_t copy_file_range(int from, off64_t *a, int to, off64_t *b, size_t n, unsigned flags)
{
    NOT_FOLLOWED("copy_file_range", to, SYS_copy_file_range, from, a, to, b, n, flags);
}
int posix_fallocate(int fd, off_t at, off_t n)
{
    if (is_tracked(fd))
        fail("posix_fallocate is not followed");
    return syscall(SYS_fallocate, fd, 0, at, n) ? errno : 0;
}
int posix_fallocate64(int fd, off64_t at, off64_t n) { return posix_fallocate(fd, at, n); }
int truncate(const char *path, off_t size)
{
    char whole[PATH_MAX];
    if (below(AT_FDCWD, path, whole))
        fail("truncate is not followed");
    return syscall(SYS_truncate, path, size);
}
