// Fixed worker threads for commits and other computing.

#ifndef FISHERD_CORE_COMPUTE_POOL_H_
#define FISHERD_CORE_COMPUTE_POOL_H_

#include <atomic>
#include <cstdint>
#include <deque>
#include <functional>
#include <thread>
#include <vector>

#include "absl/time/time.h"
#include "core/mutex.h"

namespace fisherd::core {

// Runs tasks in the order they came, on `threads` threads. Thread-safe.
class ComputePool {
 public:
  // At least 1. As many as this thread's cores: each runs on one of its own.
  explicit ComputePool(int threads);
  // Runs what has been scheduled, then stops.
  ~ComputePool();
  ComputePool(const ComputePool&) = delete;
  ComputePool& operator=(const ComputePool&) = delete;

  void Schedule(std::function<void()> task);

  // Calls work(0) … work(count − 1), each once, spread over this thread and idle workers, and
  // returns when all have returned. May be called from a task: the caller works too, so it cannot
  // deadlock.
  void ParallelFor(int64_t count, const std::function<void(int64_t)>& work);

  int threads() const { return static_cast<int>(workers_.size()); }
  // Time that the workers have spent on tasks, together.
  absl::Duration busy() const { return absl::Nanoseconds(busy_nanoseconds_.load()); }

 private:
  void Run();
  void Pin();

  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void()>> tasks_ ABSL_GUARDED_BY(mutex_);
  int idle_ ABSL_GUARDED_BY(mutex_) = 0;  // workers that wait for a task
  bool stopping_ ABSL_GUARDED_BY(mutex_) = false;
  std::atomic<int64_t> busy_nanoseconds_ = 0;
  std::atomic<int64_t> changes_ = 0;  // of tasks_ and stopping_, for whoever looks without the lock
  std::vector<std::thread> workers_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_COMPUTE_POOL_H_
