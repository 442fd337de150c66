/* A disk under a process, with a page cache that behaves as Linux's does when a sync fails.
 *
 * The real file is the page cache; a shadow file beside it is the disk. A write makes pages dirty, a sync copies the dirty
 * pages to the shadow. A sync that fails drops them instead: they are clean from then on, so that no later sync writes them,
 * and they read as new or, when the cache "evicts" them, as what the disk has. An error is told once to each descriptor that
 * was open when it happened. The marks of dirty pages lie in a file, so they outlive a process that is killed.
 *
 * DISK_ROOT     directory whose files are modelled, but for *-shm and *.lock
 * DISK_SHADOW   directory for shadows and marks, outside of it
 * DISK_CONTROL  file of 32-bit words that the test writes and the layer reads at each call: see `struct control`
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
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096
#define PAGES (1 << 16) /* 256 MiB a file */
#define FILES 256
#define FDS 8192

struct control {
    uint32_t fail_wal;    /* so many next syncs of a WAL fail with EIO; UINT32_MAX: all */
    uint32_t fail_db;     /* the same of other files */
    uint32_t fail_write;  /* so many next writes fail */
    uint32_t write_errno; /* with this */
    uint32_t hang;        /* syncs do not return while this is not 0 */
    uint32_t evict;       /* of 100 dropped pages, how many read as the disk has them from then on */
    uint32_t dice;        /* state of the dice; not 0 */
    uint32_t syncs;       /* syncs so far, counted by the layer */
    uint32_t failed;      /* of them, those that failed */
    uint32_t hanging;     /* calls that hang now */
    uint32_t lose_after;  /* after so many writes the kernel writes back by itself, and fails: told at the next sync */
    uint32_t fail_write_wal_only; /* fail_write counts writes of WALs only */
};

struct file {
    char name[512];
    int shadow;
    uint8_t *dirty;
    uint32_t errors; /* of writing back, so far */
};

static struct control *control;
static char root[512], shadow_root[512];
static struct file files[FILES];
static int file_count;
static struct { int file; uint32_t told; } fds[FDS]; /* file: index + 1 */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);
static int (*real_unlink)(const char *);
static int (*real_unlinkat)(int, const char *, int);
static int (*real_rename)(const char *, const char *);
static int (*real_renameat2)(int, const char *, int, const char *, unsigned);

__attribute__((constructor)) static void begin(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_unlink = dlsym(RTLD_NEXT, "unlink");
    real_unlinkat = dlsym(RTLD_NEXT, "unlinkat");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_renameat2 = dlsym(RTLD_NEXT, "renameat2");
    const char *path = getenv("DISK_CONTROL");
    if (!path || !getenv("DISK_ROOT") || !getenv("DISK_SHADOW")) return;
    snprintf(root, sizeof root, "%s/", getenv("DISK_ROOT"));
    snprintf(shadow_root, sizeof shadow_root, "%s", getenv("DISK_SHADOW"));
    int fd = real_open(path, O_RDWR);
    if (fd < 0) { perror("DISK_CONTROL"); abort(); }
    control = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    real_close(fd);
}

static int ends(const char *name, const char *end) {
    size_t n = strlen(name), e = strlen(end);
    return n >= e && !strcmp(name + n - e, end);
}

static int modelled(const char *path) {
    return control && path && !strncmp(path, root, strlen(root)) && !ends(path, "-shm") && !ends(path, ".lock");
}

static void shadow_name(char *to, size_t size, const char *path, const char *end) {
    size_t at = snprintf(to, size, "%s/", shadow_root);
    for (const char *c = path; *c && at + 1 < size; c++) to[at++] = *c == '/' ? '%' : *c;
    snprintf(to + at, size - at, "%s", end);
}

static int file_of(const char *path) {
    for (int i = 0; i < file_count; i++)
        if (!strcmp(files[i].name, path)) return i;
    /* A name that is not used any more makes room. */
    int at = file_count;
    if (at == FILES) { fprintf(stderr, "disk layer: too many files\n"); abort(); }
    struct file *file = &files[at];
    char name[1200];
    shadow_name(name, sizeof name, path, ".disk");
    file->shadow = real_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    shadow_name(name, sizeof name, path, ".dirty");
    int marks = real_open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (file->shadow < 0 || marks < 0 || ftruncate(marks, PAGES)) { perror(name); abort(); }
    file->dirty = mmap(NULL, PAGES, PROT_READ | PROT_WRITE, MAP_SHARED, marks, 0);
    real_close(marks);
    snprintf(file->name, sizeof file->name, "%s", path);
    file_count++;
    return at;
}

static void opened(int fd, const char *path) {
    struct stat stat;
    if (fd < 0 || fd >= FDS || !modelled(path) || fstat(fd, &stat) || !S_ISREG(stat.st_mode)) return;
    pthread_mutex_lock(&lock);
    int at = file_of(path);
    fds[fd].file = at + 1;
    fds[fd].told = files[at].errors;
    pthread_mutex_unlock(&lock);
}

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list); \
        int fd = real_open(path, flags, mode); \
        opened(fd, path); return fd; \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int dir, const char *path, int flags, ...) { \
        va_list list; va_start(list, flags); int mode = va_arg(list, int); va_end(list); \
        int fd = real_openat(dir, path, flags, mode); \
        opened(fd, path); return fd; \
    }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    if (control && fd >= 0 && fd < FDS) fds[fd].file = 0;
    return real_close(fd);
}

static struct file *file_at(int fd) {
    return control && fd >= 0 && fd < FDS && fds[fd].file ? &files[fds[fd].file - 1] : NULL;
}

static uint32_t dice(void) {
    uint32_t x = control->dice ? control->dice : 1;
    x ^= x << 13; x ^= x >> 17; x ^= x << 5;
    return control->dice = x;
}

/* The kernel could not write the dirty pages: they are clean from now on, and not on the disk. */
static void lose(int fd, struct file *file) {
    for (size_t page = 0; page < PAGES; page++) {
        if (!file->dirty[page]) continue;
        file->dirty[page] = 0;
        if (dice() % 100 < control->evict) {
            uint8_t bytes[PAGE] = {0};
            struct stat stat;
            if (pread(file->shadow, bytes, PAGE, page * PAGE) < 0) abort();
            fstat(fd, &stat);
            off_t left = stat.st_size - (off_t)page * PAGE;
            if (left > 0) real_pwrite(fd, bytes, left < PAGE ? left : PAGE, page * PAGE);
        }
    }
    file->errors++;
}

static int count_down(uint32_t *left) {
    if (!*left) return 0;
    if (*left != UINT32_MAX) --*left;
    return 1;
}

static int refuse_write(struct file *file) {
    if (control->fail_write_wal_only && !ends(file->name, "-wal")) return 0;
    if (!count_down(&control->fail_write)) return 0;
    errno = control->write_errno ? (int)control->write_errno : EIO;
    return 1;
}

static void wrote(int fd, struct file *file, off_t at, ssize_t length) {
    if (length <= 0) return;
    for (off_t page = at / PAGE; page <= (at + length - 1) / PAGE; page++) {
        if (page >= PAGES) { fprintf(stderr, "disk layer: file too large\n"); abort(); }
        file->dirty[page] = 1;
    }
    if (control->lose_after && !--control->lose_after) lose(fd, file);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct file *file = file_at(fd);
    if (!file) return real_write(fd, bytes, length);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (!refuse_write(file)) {
        off_t at = fcntl(fd, F_GETFL) & O_APPEND ? lseek(fd, 0, SEEK_END) : lseek(fd, 0, SEEK_CUR);
        done = real_write(fd, bytes, length);
        wrote(fd, file, at, done);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

static ssize_t write_at(int fd, const void *bytes, size_t length, off_t at) {
    struct file *file = file_at(fd);
    if (!file) return real_pwrite(fd, bytes, length, at);
    pthread_mutex_lock(&lock);
    ssize_t done = -1;
    if (!refuse_write(file)) {
        done = real_pwrite(fd, bytes, length, at);
        wrote(fd, file, at, done);
    }
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return write_at(fd, bytes, length, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return write_at(fd, bytes, length, at); }

static int sync_file(int fd, int (*real)(int)) {
    struct file *file = file_at(fd);
    if (!file) return real(fd);
    __atomic_add_fetch(&control->hanging, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&control->hang, __ATOMIC_SEQ_CST)) {
        struct timespec ms = {0, 1000000};
        nanosleep(&ms, NULL);
    }
    __atomic_sub_fetch(&control->hanging, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_lock(&lock);
    control->syncs++;
    if (count_down(ends(file->name, "-wal") ? &control->fail_wal : &control->fail_db)) {
        lose(fd, file);
    } else {
        struct stat stat;
        fstat(fd, &stat);
        for (size_t page = 0; page < PAGES; page++) {
            if (!file->dirty[page]) continue;
            file->dirty[page] = 0;
            uint8_t bytes[PAGE];
            ssize_t length = pread(fd, bytes, PAGE, page * PAGE);
            if (length < 0) { perror("disk layer: pread"); abort(); }
            if (real_pwrite(file->shadow, bytes, length, page * PAGE) != length) abort();
        }
        if (ftruncate(file->shadow, stat.st_size)) abort();
    }
    int told = fds[fd].told;
    fds[fd].told = file->errors;
    int failed = (uint32_t)told != file->errors;
    control->failed += failed;
    pthread_mutex_unlock(&lock);
    if (failed) errno = EIO;
    return failed ? -1 : 0;
}

int fsync(int fd) { return sync_file(fd, real_fsync); }
int fdatasync(int fd) { return sync_file(fd, real_fdatasync); }

/* Names change on the disk at once: what is tested is the content. */
static void gone(const char *path) {
    if (!modelled(path)) return;
    pthread_mutex_lock(&lock);
    for (int i = 0; i < file_count; i++) {
        if (strcmp(files[i].name, path)) continue;
        /* Descriptors that are still open go on with a shadow that has no name. */
        snprintf(files[i].name, sizeof files[i].name, "?gone");
    }
    char name[1200];
    shadow_name(name, sizeof name, path, ".disk");
    real_unlink(name);
    shadow_name(name, sizeof name, path, ".dirty");
    real_unlink(name);
    pthread_mutex_unlock(&lock);
}

int unlink(const char *path) {
    int done = real_unlink(path);
    if (!done) gone(path);
    return done;
}

int unlinkat(int dir, const char *path, int flags) {
    int done = real_unlinkat(dir, path, flags);
    if (!done) gone(path);
    return done;
}

static void moved(const char *from, const char *to) {
    if (!modelled(from)) return;
    char old[1200], new[1200];
    if (modelled(to)) gone(to);
    pthread_mutex_lock(&lock);
    for (int i = 0; i < file_count; i++)
        if (!strcmp(files[i].name, from)) snprintf(files[i].name, sizeof files[i].name, "%s", to);
    const char *ends[] = {".disk", ".dirty"};
    for (int i = 0; i < 2; i++) {
        shadow_name(old, sizeof old, from, ends[i]);
        shadow_name(new, sizeof new, to, ends[i]);
        real_rename(old, new);
    }
    pthread_mutex_unlock(&lock);
}

int rename(const char *from, const char *to) {
    int done = real_rename(from, to);
    if (!done) moved(from, to);
    return done;
}

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    int done = real_renameat2(from_dir, from, to_dir, to, flags);
    if (!done) moved(from, to);
    return done;
}
