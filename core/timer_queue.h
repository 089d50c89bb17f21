// Calls functions later.

#ifndef FISHERD_CORE_TIMER_QUEUE_H_
#define FISHERD_CORE_TIMER_QUEUE_H_

#include <functional>
#include <map>
#include <thread>

#include "absl/time/time.h"
#include "core/mutex.h"

namespace fisherd::core {

// One thread that sleeps until the earliest deadline. Thread-safe.
class TimerQueue {
 public:
  TimerQueue();
  // Calls nothing any more.
  ~TimerQueue();
  TimerQueue(const TimerQueue&) = delete;
  TimerQueue& operator=(const TimerQueue&) = delete;

  // Calls `function` once, at `deadline` (of SteadyNow) or soon after, without locks. It must be
  // quick: what takes long is scheduled elsewhere. InfiniteFuture never comes.
  void CallAt(absl::Time deadline, std::function<void()> function);

 private:
  void Run();

  Mutex mutex_;
  CondVar changed_;
  std::multimap<absl::Time, std::function<void()>> calls_ ABSL_GUARDED_BY(mutex_);
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_TIMER_QUEUE_H_
