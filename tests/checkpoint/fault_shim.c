/* Preloaded into the process under test: counts the file calls below a folder and, at call n, kills the
   process, makes the call fail, writes half and kills, or only records them (with data, for power loss).

   cc -shared -fPIC -O1 -o fault_shim.so fault_shim.c -ldl
   fault_arm(folder, action, n, errno, log): armed until fault_disarm(). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { RECORD, KILL, FAIL_ONCE, FAIL_FROM, HALF_AND_KILL };
#define FDS 4096
static int armed, action, failure, log_fd = -1;
static long at, count;
static char root[2048];
static char *name_of[FDS];

#define REAL(f) static __typeof__(&f) real; if (!real) real = (__typeof__(&f))dlsym(RTLD_NEXT, #f)
static ssize_t put(int fd, const void *data, size_t n) { REAL(write); return real(fd, data, n); }

void fault_arm(const char *folder, int what, long n, int error, const char *log) {
  REAL(open);
  snprintf(root, sizeof root, "%s", folder);
  action = what; at = n; failure = error; count = 0;
  memset(name_of, 0, sizeof name_of);
  log_fd = log && *log ? real(log, O_CREAT | O_WRONLY | O_TRUNC, 0644) : -1;
  armed = 1;
}
void fault_disarm(void) { armed = 0; }
long fault_count(void) { return count; }

static int below(const char *path) { return path && root[0] && !strncmp(path, root, strlen(root)); }
static int tracked(int fd) { return armed && fd >= 0 && fd < FDS && name_of[fd]; }
static void record(const char *call, const char *a, const char *b, const void *data, size_t n) {
  if (log_fd < 0) return;
  char line[5000];
  int k = snprintf(line, sizeof line, "%s\t%s\t%s\t%zu\n", call, a ? a : "", b ? b : "", n);
  if (put(log_fd, line, k) < 0 || (data && put(log_fd, data, n) < 0)) abort();
}
/* 1: the call must fail. `space`: a call that a full disk refuses. */
static int struck(const char *call, const char *a, const char *b, int space) {
  count++;
  if (log_fd >= 0 && strcmp(call, "write")) record(call, a, b, NULL, 0);
  if (action == KILL && count == at) kill(getpid(), SIGKILL);
  if (action == HALF_AND_KILL && count == at && strcmp(call, "write")) kill(getpid(), SIGKILL);
  if ((action == FAIL_ONCE && count == at) || (action == FAIL_FROM && count >= at && space)) {
    errno = failure;
    return 1;
  }
  return 0;
}

static int opening(const char *path, int flags) {
  int writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT);
  return armed && writes && below(path) && struck("open", path, NULL, 1);
}
static int opened(int fd, const char *path) {
  if (armed && fd >= 0 && fd < FDS && below(path)) name_of[fd] = strdup(path);
  return fd;
}
#define OPEN(f, before, params, ...)                                    \
  int f params {                                                        \
    REAL(f); mode_t mode = 0;                                           \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list l; va_start(l, flags); mode = va_arg(l, mode_t); va_end(l); } \
    if (opening(path, flags)) return -1;                                \
    return opened(real(__VA_ARGS__), path); }
OPEN(open, , (const char *path, int flags, ...), path, flags, mode)
OPEN(open64, , (const char *path, int flags, ...), path, flags, mode)
OPEN(openat, , (int dir, const char *path, int flags, ...), dir, path, flags, mode)
OPEN(openat64, , (int dir, const char *path, int flags, ...), dir, path, flags, mode)

#define FOPEN(f)                                                        \
  FILE *f(const char *path, const char *mode) {                         \
    REAL(f);                                                            \
    if (opening(path, strpbrk(mode, "wa+") ? O_WRONLY : O_RDONLY)) return NULL; \
    FILE *file = real(path, mode);                                      \
    if (file) opened(fileno(file), path);                               \
    return file; }
FOPEN(fopen)
FOPEN(fopen64)

#define WRITE(f, params, ...)                                           \
  ssize_t f params {                                                    \
    REAL(f);                                                            \
    if (tracked(fd)) {                                                  \
      if (struck("write", name_of[fd], NULL, 1)) return -1;             \
      if (action == HALF_AND_KILL && count == at) { n /= 2; if (real(__VA_ARGS__) >= 0) kill(getpid(), SIGKILL); } \
      record("write", name_of[fd], NULL, data, n);                      \
    }                                                                   \
    return real(__VA_ARGS__); }
WRITE(write, (int fd, const void *data, size_t n), fd, data, n)
WRITE(pwrite, (int fd, const void *data, size_t n, off_t o), fd, data, n, o)
WRITE(pwrite64, (int fd, const void *data, size_t n, off64_t o), fd, data, n, o)

ssize_t writev(int fd, const struct iovec *parts, int n) {
  REAL(writev);
  if (tracked(fd)) {
    if (struck("write", name_of[fd], NULL, 1)) return -1;
    if (action == HALF_AND_KILL && count == at && real(fd, parts, 1) >= 0) kill(getpid(), SIGKILL);
    for (int i = 0; i < n; i++) record("write", name_of[fd], NULL, parts[i].iov_base, parts[i].iov_len);
  }
  return real(fd, parts, n);
}

#define ON_FD(f, call, params, ...)                                     \
  int f params {                                                        \
    REAL(f);                                                            \
    if (tracked(fd) && struck(call, name_of[fd], NULL, 1)) return -1;   \
    return real(__VA_ARGS__); }
ON_FD(fsync, "fsync", (int fd), fd)
ON_FD(fdatasync, "fsync", (int fd), fd)
ON_FD(ftruncate, "truncate", (int fd, off_t n), fd, n)
ON_FD(ftruncate64, "truncate", (int fd, off64_t n), fd, n)
int close(int fd) {
  REAL(close);
  if (!tracked(fd)) return real(fd);
  int failed = struck("close", name_of[fd], NULL, 0), error = errno;
  name_of[fd] = NULL;
  int result = real(fd);
  if (failed) { errno = error; return -1; }
  return result;
}

#define ON_PATHS(f, call, params, a, b, space, ...)                     \
  int f params {                                                        \
    REAL(f);                                                            \
    if (armed && (below(a) || below(b)) && struck(call, a, b, space)) return -1; \
    return real(__VA_ARGS__); }
ON_PATHS(rename, "rename", (const char *x, const char *y), x, y, 0, x, y)
ON_PATHS(renameat, "rename", (int d, const char *x, int e, const char *y), x, y, 0, d, x, e, y)
ON_PATHS(unlink, "unlink", (const char *x), x, NULL, 0, x)
ON_PATHS(unlinkat, "unlink", (int d, const char *x, int g), x, NULL, 0, d, x, g)
ON_PATHS(mkdir, "mkdir", (const char *x, mode_t m), x, NULL, 1, x, m)
ON_PATHS(symlink, "symlink", (const char *x, const char *y), y, NULL, 1, x, y)
ON_PATHS(link, "link", (const char *x, const char *y), y, NULL, 1, x, y)
