/* Counts the calls by which a process changes files below a folder, and does something at the n-th.

   Loaded with LD_PRELOAD; nothing happens before `faults_arm`. What is counted are calls of the C
   library, so that Arrow, SQLite, safetensors and Python are all seen. A write that is the n-th is
   done by half first: a kill leaves a torn file, a full disk takes a part of the bytes.
*/
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, SIGNAL, FAIL };
enum { MAKES = 1, WRITES = 2, MOVES = 4 };

static char folder[4096];
static size_t folder_length;
static int action, number, once, kinds;
static long at;
static int noted = -1; /* where the paths go that are opened to be written */
static atomic_long calls, calls_of[5];

void faults_arm(const char *below, long n, int what, int of, int only_once, int which) {
  strncpy(folder, below, sizeof folder - 1);
  folder_length = strlen(folder);
  at = n, action = what, number = of, once = only_once, kinds = which;
  atomic_store(&calls, 0);
  for (int kind = 0; kind < 5; kind++) atomic_store(&calls_of[kind], 0);
}

void faults_note(int descriptor) { noted = descriptor; }

long faults_calls(int kind) { return atomic_load(&calls_of[kind]); }

static int is_below(int at_folder, const char *path) {
  char link[64], full[8192];
  ssize_t length = 0;
  if (!folder_length || !path) return 0;
  if (path[0] != '/') {
    if (at_folder == AT_FDCWD) {
      if (!getcwd(full, sizeof full)) return 0;
    } else {
      snprintf(link, sizeof link, "/proc/self/fd/%d", at_folder);
      length = readlink(link, full, sizeof full - 1);
      if (length < 0) return 0;
      full[length] = 0;
    }
    return !strncmp(full, folder, folder_length);
  }
  return !strncmp(path, folder, folder_length);
}

static int of_folder(int descriptor) {
  char link[64], full[4096];
  if (!folder_length) return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  ssize_t length = readlink(link, full, sizeof full - 1);
  return length >= (ssize_t)folder_length && !strncmp(full, folder, folder_length);
}

/* Count a call; 1: it has to fail, 2: it is to be done by half, then `end`. */
static int due(int kind) {
  atomic_fetch_add(&calls_of[kind], 1);
  if (!(kind & kinds)) return 0;
  long now = atomic_fetch_add(&calls, 1) + 1;
  if (action == COUNT || now < at) return 0;
  if (action == FAIL) {
    if (once && now >= at + once) return 0;
    errno = number;
    return 1;
  }
  if (now > at) return 0;
  if (kind == WRITES && action == KILL) return 2;
  if (action == KILL) kill(getpid(), SIGKILL);
  kill(getpid(), number);
  return 0;
}

#define REAL(type, name, ...)                           \
  static type (*real)(__VA_ARGS__);                     \
  if (!real) *(void **)&real = dlsym(RTLD_NEXT, name);

#define MODE                                            \
  mode_t mode = 0;                                      \
  if (flags & (O_CREAT | O_TMPFILE)) {                  \
    va_list rest;                                       \
    va_start(rest, flags);                              \
    mode = va_arg(rest, mode_t);                        \
    va_end(rest);                                       \
  }
#define IS_WRITTEN ((flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT))
#define NOTE if (noted >= 0 && IS_WRITTEN) dprintf(noted, "%s\n", path);

#define OPEN(called)                                                                     \
  int called(const char *path, int flags, ...) {                                         \
    REAL(int, #called, const char *, int, ...)                                           \
    MODE NOTE if (IS_WRITTEN && is_below(AT_FDCWD, path) && due(MAKES)) return -1;       \
    return real(path, flags, mode);                                                      \
  }
#define OPENAT(called)                                                                   \
  int called(int there, const char *path, int flags, ...) {                              \
    REAL(int, #called, int, const char *, int, ...)                                      \
    MODE NOTE if (IS_WRITTEN && is_below(there, path) && due(MAKES)) return -1;          \
    return real(there, path, flags, mode);                                               \
  }
OPEN(open)
OPEN(open64)
OPENAT(openat)
OPENAT(openat64)

static void end(void) {
  fsync(-1);
  kill(getpid(), SIGKILL);
  pause();
}

ssize_t write(int file, const void *data, size_t size) {
  REAL(ssize_t, "write", int, const void *, size_t)
  int now = of_folder(file) ? due(WRITES) : 0;
  if (now == 1) return -1;
  ssize_t done = real(file, data, now == 2 ? size / 2 : size);
  if (now == 2) end();
  return done;
}

#define PWRITE(called, offset_type)                                                      \
  ssize_t called(int file, const void *data, size_t size, offset_type offset) {          \
    REAL(ssize_t, #called, int, const void *, size_t, offset_type)                       \
    int now = of_folder(file) ? due(WRITES) : 0;                                         \
    if (now == 1) return -1;                                                             \
    ssize_t done = real(file, data, now == 2 ? size / 2 : size, offset);                 \
    if (now == 2) end();                                                                 \
    return done;                                                                         \
  }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int file, const struct iovec *parts, int count) {
  REAL(ssize_t, "writev", int, const struct iovec *, int)
  int now = of_folder(file) ? due(WRITES) : 0;
  if (now == 1) return -1;
  ssize_t done = real(file, parts, now == 2 ? (count + 1) / 2 : count);
  if (now == 2) end();
  return done;
}

#define ON_FILE(called, kind, types, names, ...)                                         \
  int called types {                                                                     \
    REAL(int, #called, __VA_ARGS__)                                                      \
    if (of_folder(file) && due(kind)) return -1;                                         \
    return real names;                                                                   \
  }
#define ON_PATH(called, there, kind, types, names, ...)                                  \
  int called types {                                                                     \
    REAL(int, #called, __VA_ARGS__)                                                      \
    if (is_below(there, path) && due(kind)) return -1;                                   \
    return real names;                                                                   \
  }
ON_FILE(fsync, MOVES, (int file), (file), int)
ON_FILE(fdatasync, MOVES, (int file), (file), int)
ON_FILE(ftruncate, MAKES, (int file, off_t size), (file, size), int, off_t)
ON_FILE(ftruncate64, MAKES, (int file, off64_t size), (file, size), int, off64_t)
ON_PATH(mkdir, AT_FDCWD, MAKES, (const char *path, mode_t mode), (path, mode), const char *, mode_t)
ON_PATH(mkdirat, there, MAKES, (int there, const char *path, mode_t mode), (there, path, mode), int,
        const char *, mode_t)
ON_PATH(rmdir, AT_FDCWD, MOVES, (const char *path), (path), const char *)
ON_PATH(unlink, AT_FDCWD, MOVES, (const char *path), (path), const char *)
ON_PATH(unlinkat, there, MOVES, (int there, const char *path, int flags), (there, path, flags), int,
        const char *, int)
ON_PATH(rename, AT_FDCWD, MOVES, (const char *path, const char *to), (path, to), const char *,
        const char *)
ON_PATH(renameat, there, MOVES, (int there, const char *path, int other, const char *to),
        (there, path, other, to), int, const char *, int, const char *)
