#include "core/watch_hub.h"

#include <algorithm>
#include <utility>

namespace fisherd::core {
namespace {

// What is left to say when `later` has followed on `event`, of the same factor.
FactorEvent Merged(const FactorEvent& event, const FactorEvent& later) {
  if (later.kind == FactorEventKind::kDeleted) return later;
  const bool present = event.kind == FactorEventKind::kPresent;
  return {.kind = present ? FactorEventKind::kPresent : FactorEventKind::kSkipped,
          .factor = later.factor,
          .version = later.version,
          .next = later.next,
          .durable = later.durable,
          .towers = later.towers};
}

}  // namespace

Watcher::Watcher(WatchHub* hub, std::string prefix, size_t capacity, std::function<void()> wake)
    : hub_(hub), prefix_(std::move(prefix)), capacity_(capacity), wake_(std::move(wake)) {}

Watcher::~Watcher() {
  MutexLock lock(&hub_->mutex_);
  hub_->watchers_.erase(this);
  hub_->watched_.store(!hub_->watchers_.empty(), std::memory_order_relaxed);
}

std::vector<FactorEvent> Watcher::Take(size_t limit) {
  std::vector<FactorEvent> events;
  MutexLock lock(&mutex_);
  idle_ = waiting_.empty();
  events.reserve(std::min(limit, waiting_.size()));
  while (!waiting_.empty() && events.size() < limit) {
    FactorEvent& event = waiting_.front();
    if (const auto it = overflow_.find(event.factor);
        it != overflow_.end() && it->second == &event) {
      overflow_.erase(it);
    }
    events.push_back(std::move(event));
    waiting_.pop_front();
  }
  return events;
}

void Watcher::Present(FactorEvent event) {
  MutexLock lock(&mutex_);
  if (!known_.try_emplace(event.factor, event.version.incarnation).second) return;
  Push(std::move(event));
}

bool Watcher::closed() const {
  MutexLock lock(&mutex_);
  return closed_;
}

void Watcher::Close() {
  MutexLock lock(&mutex_);
  closed_ = true;
  Wake();
}

void Watcher::Tell(const FactorEvent& event) {
  if (!event.factor.starts_with(prefix_)) return;
  MutexLock lock(&mutex_);
  if (event.kind == FactorEventKind::kCreated) {
    known_[event.factor] = event.version.incarnation;
  } else {
    const auto it = known_.find(event.factor);
    // An older life of the name may still end when the next one has begun.
    if (it == known_.end() || event.version.incarnation < it->second) return;
    it->second = event.version.incarnation;
    if (event.kind == FactorEventKind::kDeleted) known_.erase(it);
  }
  Push(event);
}

void Watcher::Push(FactorEvent event) {
  if (const auto it = overflow_.find(event.factor); it != overflow_.end()) {
    *it->second = Merged(*it->second, event);
    return;
  }
  const bool full = waiting_.size() >= capacity_;
  waiting_.push_back(std::move(event));
  if (full) overflow_.emplace(waiting_.back().factor, &waiting_.back());
  if (std::exchange(idle_, false)) Wake();
}

void Watcher::Wake() {
  hub_->pool_->Schedule([weak = weak_from_this()] {
    if (const std::shared_ptr<Watcher> watcher = weak.lock()) watcher->wake_();
  });
}

std::shared_ptr<Watcher> WatchHub::Watch(std::string prefix, std::function<void()> wake,
                                         size_t capacity) {
  const std::shared_ptr<Watcher> watcher(
      new Watcher(this, std::move(prefix), capacity, std::move(wake)));
  MutexLock lock(&mutex_);
  watchers_.insert(watcher.get());
  watched_.store(true, std::memory_order_relaxed);
  if (shutting_down_) watcher->Close();
  return watcher;
}

void WatchHub::Publish(const FactorEvent& event) {
  if (!watched()) return;
  MutexLock lock(&mutex_);
  for (Watcher* watcher : watchers_) watcher->Tell(event);
}

void WatchHub::Shutdown() {
  MutexLock lock(&mutex_);
  shutting_down_ = true;
  for (Watcher* watcher : watchers_) watcher->Close();
}

}  // namespace fisherd::core
