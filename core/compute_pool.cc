#include "core/compute_pool.h"

#ifdef __linux__
#include <pthread.h>
#include <sched.h>
#endif

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <utility>

#include "core/clock.h"

namespace fisherd::core {
namespace {

// Whoever waits, for the last index or for a task, looks out for a moment before it sleeps: waking
// up takes longer than most tiles do.
constexpr auto kLookout = std::chrono::microseconds(30);

template <typename Condition>
void LookOut(const Condition& condition) {
  const auto end = std::chrono::steady_clock::now() + kLookout;
  while (!condition() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
}

// One ParallelFor. Helpers keep it alive: one may wake up after the caller has returned.
class Loop {
 public:
  Loop(int64_t count, const std::function<void(int64_t)>& work) : count_(count), work_(work) {}

  // Takes indices as long as there are any. `work` is alive whenever it finds one, because the
  // caller waits for every index.
  void Work() {
    int64_t done = 0;
    for (int64_t i = next_++; i < count_; i = next_++, ++done) work_(i);
    if (done == 0) return;
    if (done_.fetch_add(done) + done < count_) return;
    MutexLock lock(&mutex_);  // or the caller could miss it between its look and its sleep
    all_done_.NotifyAll();
  }

  void Wait() {
    LookOut([this] { return done_ == count_; });
    if (done_ == count_) return;
    MutexLock lock(&mutex_);
    while (done_ < count_) all_done_.Wait(&mutex_);
  }

 private:
  const int64_t count_;
  const std::function<void(int64_t)>& work_;
  std::atomic<int64_t> next_ = 0;
  std::atomic<int64_t> done_ = 0;
  Mutex mutex_;
  CondVar all_done_;
};

}  // namespace

ComputePool::ComputePool(int threads) {
  for (int i = 0; i < std::max(threads, 1); ++i) workers_.emplace_back([this] { Run(); });
  Pin();
}

// A worker that has slept may be woken up on the core of whoever wakes it, and stay there for
// longer than a step takes, while another core is idle. With as many workers as there are cores
// each gets its own. Fewer are left to the system: other processes might choose the same cores.
void ComputePool::Pin() {
#ifdef __linux__
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) return;
  if (workers_.size() < 2 || CPU_COUNT(&allowed) != static_cast<int>(workers_.size())) return;
  int cpu = -1;
  for (std::thread& worker : workers_) {
    do ++cpu;
    while (!CPU_ISSET(cpu, &allowed));
    cpu_set_t own;
    CPU_ZERO(&own);
    CPU_SET(cpu, &own);
    pthread_setaffinity_np(worker.native_handle(), sizeof(own), &own);
  }
#endif
}

ComputePool::~ComputePool() {
  {
    MutexLock lock(&mutex_);
    stopping_ = true;
    ++changes_;
  }
  wake_.NotifyAll();
  for (std::thread& worker : workers_) worker.join();
}

void ComputePool::Schedule(std::function<void()> task) {
  {
    MutexLock lock(&mutex_);
    tasks_.push_back(std::move(task));
    ++changes_;
  }
  wake_.NotifyOne();
}

void ComputePool::ParallelFor(int64_t count, const std::function<void(int64_t)>& work) {
  auto loop = std::make_shared<Loop>(count, work);
  {
    MutexLock lock(&mutex_);
    const int64_t idle = idle_ - static_cast<int64_t>(tasks_.size());
    for (int64_t i = 0; i < std::min(idle, count - 1); ++i) {
      tasks_.push_back([loop] { loop->Work(); });
    }
    ++changes_;
  }
  wake_.NotifyAll();
  loop->Work();
  loop->Wait();
}

void ComputePool::Run() {
  while (true) {
    std::function<void()> task;
    bool nothing;
    int64_t changes;
    {
      MutexLock lock(&mutex_);
      ++idle_;
      nothing = tasks_.empty();
      changes = changes_;
    }
    if (nothing) LookOut([&] { return changes_ != changes; });
    {
      MutexLock lock(&mutex_);
      while (tasks_.empty() && !stopping_) wake_.Wait(&mutex_);
      --idle_;
      if (tasks_.empty()) return;
      task = std::move(tasks_.front());
      tasks_.pop_front();
    }
    const absl::Time began = SteadyNow();
    task();
    busy_nanoseconds_ += absl::ToInt64Nanoseconds(SteadyNow() - began);
  }
}

}  // namespace fisherd::core
