// What happens to factors, told to whoever watches.

#ifndef FISHERD_CORE_WATCH_HUB_H_
#define FISHERD_CORE_WATCH_HUB_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "core/commit_record.h"
#include "core/compute_pool.h"
#include "core/mutex.h"

namespace fisherd::core {

enum class FactorEventKind {
  kPresent,
  kCreated,
  kStepEnded,
  kDurable,
  kTowersChanged,
  kReset,
  kDeleted,
  kSkipped
};

// How a factor stands after something has happened to it; see FactorEvent of factor_service.proto.
struct FactorEvent {
  FactorEventKind kind = FactorEventKind::kPresent;
  std::string factor;
  Version version;
  int64_t next = 1;
  int64_t durable = 0;
  int towers = 0;
  int64_t step = 0;                           // kStepEnded, kTowersChanged
  StepOutcome outcome = StepOutcome::kWhole;  // kStepEnded, as all below
  int towers_counted = 0;
  uint64_t label = 0;
  int tower = 0;  // whose step it was, if towers have their own
};

class WatchHub;

// One who watches. Thread-safe, with one Take at a time.
//
// Of each factor it is told a PRESENT or CREATED first, then every event in the order of its
// publication, each once; what happened before the PRESENT is not told. It waits in a queue: beyond
// `capacity` events, one of each factor at most, into which those that follow are merged until it
// is taken: as SKIPPED, or PRESENT if it was that, or DELETED if that was the last.
class Watcher : public std::enable_shared_from_this<Watcher> {
 public:
  ~Watcher();
  Watcher(const Watcher&) = delete;
  Watcher& operator=(const Watcher&) = delete;

  // Up to `limit` of the events that wait. If there are none, `wake` will be called once there are.
  std::vector<FactorEvent> Take(size_t limit);

  // A factor as it stands: a kPresent, given under the factor's lock. Later events of the factor
  // follow; without it, or a kCreated, they are not told. No effect for a factor that is known.
  void Present(FactorEvent event);

  // The server shuts down: nothing more will come.
  bool closed() const;

 private:
  friend class WatchHub;
  Watcher(WatchHub* hub, std::string prefix, size_t capacity, std::function<void()> wake);

  void Tell(const FactorEvent& event);
  void Close();
  void Push(FactorEvent event) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Wake() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  WatchHub* const hub_;
  const std::string prefix_;
  const size_t capacity_;
  const std::function<void()> wake_;

  mutable Mutex mutex_;                                                         // after the hub's
  std::map<std::string, uint64_t, std::less<>> known_ ABSL_GUARDED_BY(mutex_);  // → incarnation
  std::deque<FactorEvent> waiting_ ABSL_GUARDED_BY(mutex_);
  // Those of waiting_ into which events are merged.
  std::map<std::string, FactorEvent*, std::less<>> overflow_ ABSL_GUARDED_BY(mutex_);
  bool idle_ ABSL_GUARDED_BY(mutex_) = false;  // has found nothing to take
  bool closed_ ABSL_GUARDED_BY(mutex_) = false;
};

// Thread-safe. Must outlive its watchers and what it schedules on the pool.
class WatchHub {
 public:
  explicit WatchHub(ComputePool* pool) : pool_(pool) {}

  // Watches the factors whose names start with `prefix`; those that are there already are yet to be
  // made Present. `wake` is called from a thread of the pool, without locks, and not again before
  // a Take.
  std::shared_ptr<Watcher> Watch(std::string prefix, std::function<void()> wake,
                                 size_t capacity = 4096);

  // Whether anybody watches: without, an event need not even be made. An event is never missed that
  // follows, under the factor's lock, on a Present.
  bool watched() const { return watched_.load(std::memory_order_relaxed); }

  // To be called under the lock under which it happened, so that the order is the factor's. Short,
  // and calls nobody.
  void Publish(const FactorEvent& event);

  // The server shuts down: every watcher is woken, and those that come are closed from the start.
  void Shutdown();

 private:
  friend class Watcher;

  ComputePool* const pool_;
  std::atomic<bool> watched_ = false;

  Mutex mutex_;  // after the locks of factors and their registry
  std::set<Watcher*> watchers_ ABSL_GUARDED_BY(mutex_);
  bool shutting_down_ ABSL_GUARDED_BY(mutex_) = false;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_WATCH_HUB_H_
