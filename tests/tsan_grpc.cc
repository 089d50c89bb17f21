// Tells ThreadSanitizer the orders that gRPC keeps and that it cannot see, because the installed
// library is not instrumented:
//
//   the start of an operation      happens before   its completion is delivered
//   the start of a server          happens before   any of its calls
//   all callbacks of a call        happen before    its OnDone
//   every OnDone                   happens before   the end of the server
//   the setting of an alarm        happens before   its callback
//
// and no other, so that a race between two callbacks is still one (seeded_race.cc). It stands
// between the program and the library; linked into the tests of the tsan preset alone, and not
// instrumented itself, lest its lock order what gRPC does not.

#include <dlfcn.h>
#include <grpc/grpc.h>
#include <grpcpp/alarm.h>
#include <grpcpp/support/server_callback.h>
#include <link.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <thread>
#include <unordered_map>
#include <utility>
#include <vector>

extern "C" void __tsan_acquire(void* address);
extern "C" void __tsan_release(void* address);

namespace {

using Functor = grpc_completion_queue_functor;
using Run = void (*)(Functor*, int);

template <typename Function>
Function* Real(Function*, const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

class SpinLock {
 public:
  SpinLock() {
    while (flag_.test_and_set(std::memory_order_acquire)) {
    }
  }
  ~SpinLock() { flag_.clear(std::memory_order_release); }

 private:
  static inline std::atomic_flag flag_;
};

using Ranges = std::vector<std::pair<uintptr_t, uintptr_t>>;

int AddCode(dl_phdr_info* module, size_t, void* ranges) {
  for (int i = 0; i < module->dlpi_phnum; ++i) {
    const auto& segment = module->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || !(segment.p_flags & PF_X)) continue;
    const uintptr_t begin = module->dlpi_addr + segment.p_vaddr;
    static_cast<Ranges*>(ranges)->emplace_back(begin, begin + segment.p_memsz);
  }
  return 0;
}

// A tag is a functor or an object with a virtual table; only a functor begins with code's address.
bool IsFunctor(const void* tag) {
  static const Ranges code = [] {
    Ranges ranges;
    dl_iterate_phdr(AddCode, &ranges);
    return ranges;
  }();
  const auto first = *static_cast<const uintptr_t*>(tag);
  return std::any_of(code.begin(), code.end(), [first](const auto& range) {
    return range.first <= first && first < range.second;
  });
}

std::unordered_map<Functor*, Run>& RealRuns() {
  static auto* runs = new std::unordered_map<Functor*, Run>;
  return *runs;
}

void Deliver(Functor* functor, int ok) {
  __tsan_acquire(functor);
  Run run;
  {
    const SpinLock lock;
    run = RealRuns().at(functor);
  }
  run(functor, ok);
}

char server_started;
char calls_done;

}  // namespace

extern "C" {

grpc_call_error grpc_call_start_batch(grpc_call* call, const grpc_op* ops, size_t count, void* tag,
                                      void* reserved) {
  static const auto real = Real(grpc_call_start_batch, "grpc_call_start_batch");
  if (tag != nullptr) {
    if (IsFunctor(tag)) {
      auto* functor = static_cast<Functor*>(tag);
      if (functor->functor_run != Deliver) {
        const SpinLock lock;
        RealRuns()[functor] = std::exchange(functor->functor_run, Deliver);
      }
    }
    __tsan_release(tag);
  }
  return real(call, ops, count, tag, reserved);
}

grpc_event grpc_completion_queue_pluck(grpc_completion_queue* queue, void* tag,
                                       gpr_timespec deadline, void* reserved) {
  static const auto real = Real(grpc_completion_queue_pluck, "grpc_completion_queue_pluck");
  const grpc_event event = real(queue, tag, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(tag);
  return event;
}

grpc_event grpc_completion_queue_next(grpc_completion_queue* queue, gpr_timespec deadline,
                                      void* reserved) {
  static const auto real = Real(grpc_completion_queue_next, "grpc_completion_queue_next");
  const grpc_event event = real(queue, deadline, reserved);
  if (event.type == GRPC_OP_COMPLETE) __tsan_acquire(event.tag);
  return event;
}

void grpc_server_start(grpc_server* server) {
  static const auto real = Real(grpc_server_start, "grpc_server_start");
  __tsan_release(&server_started);
  real(server);
}

// The first thing that a handler does with a new call.
void* grpc_call_arena_alloc(grpc_call* call, size_t size) {
  static const auto real = Real(grpc_call_arena_alloc, "grpc_call_arena_alloc");
  __tsan_acquire(&server_started);
  return real(call, size);
}

// The last thing but one that a call does, after OnDone and before it lets go of the server.
void grpc_call_unref(grpc_call* call) {
  static const auto real = Real(grpc_call_unref, "grpc_call_unref");
  __tsan_release(&calls_done);
  real(call);
}

void grpc_server_destroy(grpc_server* server) {
  static const auto real = Real(grpc_server_destroy, "grpc_server_destroy");
  real(server);
  __tsan_acquire(&calls_done);
}

}  // extern "C"

namespace grpc {

// These two take a thread of their own where the library would take one of its executor's.

void internal::ServerCallbackCall::ScheduleOnDone(bool inline_ondone) {
  __tsan_acquire(&callbacks_outstanding_);
  if (inline_ondone) {
    CallOnDone();
  } else {
    std::thread([this] { CallOnDone(); }).detach();
  }
}

void internal::ServerCallbackCall::CallOnCancel(ServerReactor* reactor) {
  __tsan_acquire(&on_cancel_conditions_remaining_);
  if (reactor->InternalInlineable()) {
    reactor->OnCancel();
    return;
  }
  Ref();
  std::thread([this, reactor] {
    reactor->OnCancel();
    __tsan_release(&callbacks_outstanding_);
    MaybeDone();
  }).detach();
}

void Alarm::SetInternal(gpr_timespec deadline, std::function<void(bool)> callback) {
  static const auto real =
      reinterpret_cast<void (*)(Alarm*, gpr_timespec, std::function<void(bool)>)>(
          dlsym(RTLD_NEXT, "_ZN4grpc5Alarm11SetInternalE12gpr_timespecSt8functionIFvbEE"));
  // Called once, when it fires or is cancelled. No std::shared_ptr in this file: the linker may
  // keep its reference count, not instrumented, for the whole program.
  auto* given = new std::function<void(bool)>(std::move(callback));
  __tsan_release(given);
  real(this, deadline, [given](bool ok) {
    __tsan_acquire(given);
    (*given)(ok);
    delete given;
  });
}

}  // namespace grpc
