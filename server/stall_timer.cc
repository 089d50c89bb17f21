#include "server/stall_timer.h"

#include <utility>

#include "core/clock.h"

namespace fisherd::server {

StallTimer::StallTimer(absl::Duration timeout, std::function<void()> on_stall)
    : state_(std::make_shared<State>(timeout)) {
  core::MutexLock lock(&state_->mutex);
  state_->on_stall = std::move(on_stall);
}

int64_t StallTimer::Begin(const std::shared_ptr<State>& state) {
  const absl::Time now = core::SteadyNow();
  bool first = false;
  int64_t operation = 0;
  {
    core::MutexLock lock(&state->mutex);
    first = state->operation == 0;
    operation = ++state->operation;
    state->since = now;
  }
  if (first) Arm(state, state->timeout);
  return operation;
}

// Only now may the stall Finish the call: a Finish before the Start…() would be a misuse of gRPC.
// The operation can have ended meanwhile, and the next one be on its way to its own Start…().
void StallTimer::SetPending(State& state, int64_t operation) {
  core::MutexLock lock(&state.mutex);
  if (state.operation == operation) state.pending = true;
}

bool StallTimer::Done() {
  core::MutexLock lock(&state_->mutex);
  if (state_->stalled) return false;
  ++state_->operation;
  state_->pending = false;
  return true;
}

void StallTimer::Stop() {
  std::function<void()> on_stall;
  std::shared_ptr<grpc::Alarm> alarm;
  core::MutexLock lock(&state_->mutex);
  on_stall = std::exchange(state_->on_stall, nullptr);
  alarm = std::move(state_->alarm);
}

void StallTimer::Arm(const std::shared_ptr<State>& state, absl::Duration delay) {
  // A new alarm each time: one that rings cannot be set again from its own callback.
  const auto alarm = std::make_shared<grpc::Alarm>();
  std::shared_ptr<grpc::Alarm> before = alarm;
  {
    core::MutexLock lock(&state->mutex);
    if (state->on_stall == nullptr) return;
    std::swap(before, state->alarm);
  }
  // Without the lock, for it may ring at once. If Stop comes first, the alarm goes with this scope.
  const gpr_timespec span =
      gpr_time_from_millis(absl::ToInt64Milliseconds(delay) + 1, GPR_TIMESPAN);
  alarm->Set(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), span), [state](bool rang) {
    if (rang) OnAlarm(state);
  });
}

void StallTimer::OnAlarm(const std::shared_ptr<State>& state) {
  const absl::Time now = core::SteadyNow();
  absl::Time deadline;
  std::function<void()> on_stall;
  {
    core::MutexLock lock(&state->mutex);
    if (state->on_stall == nullptr) return;
    // While nothing is pending, the server itself is at work.
    deadline = (state->pending ? state->since : now) + state->timeout;
    if (deadline <= now) {
      state->stalled = true;
      on_stall = std::exchange(state->on_stall, nullptr);
    }
  }
  if (on_stall != nullptr) {
    on_stall();
  } else {
    Arm(state, deadline - now);
  }
}

}  // namespace fisherd::server
