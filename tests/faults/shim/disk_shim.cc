// To be preloaded (LD_PRELOAD) into a server: its disk does what the tests want.
//
// $FISHERD_DISK_SHIM is a file whose first byte says what, from one call to the next; it counts for
// files below $FISHERD_DISK_SHIM_DIR only:
//
//   '-'  nothing      'f'  full: writes fail with ENOSPC     'e'  writes fail with EIO
//   's'  writes take a part of what they are given           'y'  syncs fail with EIO
//   'w'  syncs take 100 ms

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

const volatile char* Control() {
  static const volatile char* const control = [] {
    const int file = open(getenv("FISHERD_DISK_SHIM"), O_RDONLY);
    return static_cast<const volatile char*>(mmap(nullptr, 1, PROT_READ, MAP_SHARED, file, 0));
  }();
  return control;
}

bool IsOurs(int file) {
  char link[64];
  char path[512];
  snprintf(link, sizeof(link), "/proc/self/fd/%d", file);
  const ssize_t size = readlink(link, path, sizeof(path) - 1);
  if (size <= 0) return false;
  path[size] = '\0';
  const char* const directory = getenv("FISHERD_DISK_SHIM_DIR");
  return strncmp(path, directory, strlen(directory)) == 0;
}

// What is to happen to a file now.
char ModeOf(int file) {
  const char mode = *Control();
  return mode == '-' || !IsOurs(file) ? '-' : mode;
}

// True, with errno, if a write fails; else less of it may be written.
bool Fails(int file, size_t* size) {
  switch (ModeOf(file)) {
    case 'f':
      errno = ENOSPC;
      return true;
    case 'e':
      errno = EIO;
      return true;
    case 's':
      if (*size > 1) *size = *size / 2;
      return false;
    default:
      return false;
  }
}

template <typename Function>
Function* Next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

int Sync(int file, const char* name) {
  switch (ModeOf(file)) {
    case 'y':
      errno = EIO;
      return -1;
    case 'w':
      usleep(100'000);
      break;
    default:
      break;
  }
  return Next<int(int)>(name)(file);
}

}  // namespace

extern "C" {

ssize_t write(int file, const void* bytes, size_t size) {
  if (Fails(file, &size)) return -1;
  return Next<ssize_t(int, const void*, size_t)>("write")(file, bytes, size);
}

ssize_t pwrite(int file, const void* bytes, size_t size, off_t offset) {
  if (Fails(file, &size)) return -1;
  return Next<ssize_t(int, const void*, size_t, off_t)>("pwrite")(file, bytes, size, offset);
}

ssize_t pwrite64(int file, const void* bytes, size_t size, off64_t offset) {
  if (Fails(file, &size)) return -1;
  return Next<ssize_t(int, const void*, size_t, off64_t)>("pwrite64")(file, bytes, size, offset);
}

// The first part stands for all: less is written of it, and nothing of the others.
ssize_t pwritev(int file, const iovec* parts, int count, off_t offset) {
  size_t size = 0;
  for (int i = 0; i < count; ++i) size += parts[i].iov_len;
  const size_t whole = size;
  if (Fails(file, &size)) return -1;
  if (size < whole) return pwrite(file, parts[0].iov_base, parts[0].iov_len, offset);
  return Next<ssize_t(int, const iovec*, int, off_t)>("pwritev")(file, parts, count, offset);
}

int fallocate(int file, int mode, off_t offset, off_t size) {
  size_t whole = static_cast<size_t>(size);
  if (Fails(file, &whole)) return -1;
  return Next<int(int, int, off_t, off_t)>("fallocate")(file, mode, offset, size);
}

int fsync(int file) { return Sync(file, "fsync"); }
int fdatasync(int file) { return Sync(file, "fdatasync"); }

}  // extern "C"
