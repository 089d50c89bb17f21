// ThreadSanitizer does not see gRPC order a reactor's callbacks, because the library is not
// instrumented. These two lines tell it, and hide nothing else: ReactorAcquired(this) stands first
// in every callback of a reactor; ReactorReleases(this) before every Start…() and Finish(), and
// last in a callback that touches the reactor after them. The build defines FISHERD_TSAN where it
// compiles for ThreadSanitizer.

#ifndef FISHERD_SERVER_REACTOR_TSAN_H_
#define FISHERD_SERVER_REACTOR_TSAN_H_

#ifdef FISHERD_TSAN
extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);
#endif

namespace fisherd::server {

inline void ReactorAcquired([[maybe_unused]] void* reactor) {
#ifdef FISHERD_TSAN
  __tsan_acquire(reactor);
#endif
}

inline void ReactorReleases([[maybe_unused]] void* reactor) {
#ifdef FISHERD_TSAN
  __tsan_release(reactor);
#endif
}

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_REACTOR_TSAN_H_
