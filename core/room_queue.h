// Bytes, and the queue of those who wait for them.

#ifndef FISHERD_CORE_ROOM_QUEUE_H_
#define FISHERD_CORE_ROOM_QUEUE_H_

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <utility>

namespace fisherd::core {

// First come, first served: who has to wait joins the end, once, and nobody passes whoever waits,
// so that a large wish is not starved by small ones. A pure state machine, for any Waiter that can
// be compared. Not thread-safe.
template <typename Waiter>
class RoomQueue {
 public:
  explicit RoomQueue(int64_t limit) : limit_(limit) {}

  // Takes `bytes` (≥ 0) if there are so many, whoever waits.
  bool Take(int64_t bytes) {
    if (bytes > limit_ - used_) return false;
    used_ += bytes;
    return true;
  }

  // Takes `bytes` if there are so many and nobody waits before `waiter`, who then waits no more.
  // Otherwise it waits, at its place if it has one.
  bool TakeInTurn(const Waiter& waiter, int64_t bytes) {
    const auto place = Find(waiter);
    if (place == queue_.end()) {
      if (queue_.empty() && Take(bytes)) return true;
      queue_.emplace_back(waiter, bytes);
      return false;
    }
    place->second = bytes;
    if (place != queue_.begin() || !Take(bytes)) return false;
    queue_.pop_front();
    return true;
  }

  // Waits no more.
  void Leave(const Waiter& waiter) {
    if (const auto place = Find(waiter); place != queue_.end()) queue_.erase(place);
  }

  void GiveBack(int64_t bytes) { used_ -= bytes; }

  // The first who waits, if what it asked for last is there now.
  std::optional<Waiter> Ready() const {
    if (queue_.empty() || queue_.front().second > limit_ - used_) return std::nullopt;
    return queue_.front().first;
  }

  int64_t limit() const { return limit_; }
  int64_t used() const { return used_; }
  const std::deque<std::pair<Waiter, int64_t>>& waiting() const { return queue_; }

 private:
  auto Find(const Waiter& waiter) {
    return std::find_if(queue_.begin(), queue_.end(),
                        [&](const auto& entry) { return entry.first == waiter; });
  }

  int64_t limit_;
  int64_t used_ = 0;
  std::deque<std::pair<Waiter, int64_t>> queue_;  // who, and how many bytes it asked for last
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_ROOM_QUEUE_H_
