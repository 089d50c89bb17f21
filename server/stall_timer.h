// Ends a transfer whose peer has stopped: one operation of its call has been pending for too long.

#ifndef FISHERD_SERVER_STALL_TIMER_H_
#define FISHERD_SERVER_STALL_TIMER_H_

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/time/time.h"
#include "core/mutex.h"
#include "grpcpp/alarm.h"

namespace fisherd::server {

// Watches the operations of one call, of which one is pending at a time. Every Start…() of its
// reactor goes through Run, and every On…Done asks Done first; then `on_stall` runs, once, only
// while an operation is pending, and it is the only one to Finish the call:
//
//   timer.Run([&] { StartWrite(&response); });
//   void OnWriteDone(bool ok) override { if (!timer.Done()) return; … }
//
// Thread-safe.
class StallTimer {
 public:
  // `on_stall` is called from a thread of gRPC's. What it holds is let go after Stop.
  StallTimer(absl::Duration timeout, std::function<void()> on_stall);
  ~StallTimer() { Stop(); }
  StallTimer(const StallTimer&) = delete;
  StallTimer& operator=(const StallTimer&) = delete;

  // Calls `start`, which may go as far as to destroy this timer. The first one begins the watch.
  template <typename Start>
  void Run(Start start) {
    const std::shared_ptr<State> state = state_;
    const int64_t operation = Begin(state);
    start();
    SetPending(*state, operation);
  }

  // The operation has ended. False if `on_stall` has taken the call.
  bool Done();

  // on_stall is not called any more, though a call of it under way may go on.
  void Stop();

 private:
  struct State {
    explicit State(absl::Duration timeout) : timeout(timeout) {}

    const absl::Duration timeout;
    core::Mutex mutex;
    std::function<void()> on_stall ABSL_GUARDED_BY(mutex);  // null: stalled or stopped
    std::shared_ptr<grpc::Alarm> alarm ABSL_GUARDED_BY(mutex);
    bool stalled ABSL_GUARDED_BY(mutex) = false;
    int64_t operation ABSL_GUARDED_BY(mutex) = 0;  // counts starts and ends
    bool pending ABSL_GUARDED_BY(mutex) = false;   // started for certain
    absl::Time since ABSL_GUARDED_BY(mutex);       // of the last progress
  };

  static int64_t Begin(const std::shared_ptr<State>& state);
  static void SetPending(State& state, int64_t operation);
  static void Arm(const std::shared_ptr<State>& state, absl::Duration delay);
  static void OnAlarm(const std::shared_ptr<State>& state);

  const std::shared_ptr<State> state_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STALL_TIMER_H_
