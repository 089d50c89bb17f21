// The one place where memory is granted.

#ifndef FISHERD_CORE_BYTE_BUDGET_H_
#define FISHERD_CORE_BYTE_BUDGET_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <utility>

#include "core/mutex.h"
#include "core/room_queue.h"

namespace fisherd::core {

class ByteBudget;

// Bytes taken from a budget, given back when this goes. Movable. The budget must outlive it.
class ByteGrant {
 public:
  ByteGrant() = default;
  ByteGrant(ByteGrant&& other) noexcept { *this = std::move(other); }
  ByteGrant& operator=(ByteGrant&& other) noexcept;
  ~ByteGrant();

  int64_t bytes() const { return bytes_; }

 private:
  friend class ByteBudget;
  ByteGrant(ByteBudget* budget, int64_t bytes) : budget_(budget), bytes_(bytes) {}

  ByteBudget* budget_ = nullptr;
  int64_t bytes_ = 0;
};

// Who waits in a budget's queue.
class RoomWaiter {
 public:
  virtual ~RoomWaiter() = default;
  // It is this one's turn and there is what it asked for: it should ask again. Called by whoever
  // gave bytes back, with any locks of his held: must take none, and only schedule.
  virtual void OnRoom() = 0;
};

// Thread-safe.
class ByteBudget {
 public:
  explicit ByteBudget(int64_t limit) : queue_(limit), limit_(limit) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  // Takes `bytes` (≥ 0) if that many are left; never waits.
  std::optional<ByteGrant> TryTake(int64_t bytes);

  // As in RoomQueue. What these take is to be given back by GiveBack.
  bool Take(int64_t bytes);
  bool TakeInTurn(const std::shared_ptr<RoomWaiter>& waiter, int64_t bytes);
  void Leave(const std::shared_ptr<RoomWaiter>& waiter);
  void GiveBack(int64_t bytes);

  int64_t limit() const { return limit_; }
  int64_t used() const;

 private:
  // Tells the first who waits, outside of the lock.
  void TellFirst();

  mutable Mutex mutex_;
  RoomQueue<std::shared_ptr<RoomWaiter>> queue_ ABSL_GUARDED_BY(mutex_);
  const int64_t limit_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BYTE_BUDGET_H_
