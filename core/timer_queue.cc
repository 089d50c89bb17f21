#include "core/timer_queue.h"

#include <utility>

#include "core/clock.h"

namespace fisherd::core {

TimerQueue::TimerQueue() : thread_([this] { Run(); }) {}

TimerQueue::~TimerQueue() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void TimerQueue::CallAt(absl::Time deadline, std::function<void()> function) {
  if (deadline == absl::InfiniteFuture()) return;
  MutexLock lock(&mutex_);
  const auto call = calls_.emplace(deadline, std::move(function));
  if (call == calls_.begin()) changed_.NotifyAll();
}

void TimerQueue::Run() {
  for (;;) {
    std::function<void()> due;
    {
      MutexLock lock(&mutex_);
      while (!stopping_ && (calls_.empty() || calls_.begin()->first > SteadyNow())) {
        changed_.WaitUntil(&mutex_,
                           calls_.empty() ? absl::InfiniteFuture() : calls_.begin()->first);
      }
      if (stopping_) return;
      due = std::move(calls_.extract(calls_.begin()).mapped());
    }
    due();
  }
}

}  // namespace fisherd::core
