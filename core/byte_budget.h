// The one place where memory is granted.

#ifndef FISHERD_CORE_BYTE_BUDGET_H_
#define FISHERD_CORE_BYTE_BUDGET_H_

#include <cstdint>
#include <optional>
#include <utility>

#include "core/mutex.h"

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

// Thread-safe.
class ByteBudget {
 public:
  explicit ByteBudget(int64_t limit) : limit_(limit) {}
  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  // Takes `bytes` (≥ 0) if that many are left; never waits.
  std::optional<ByteGrant> TryTake(int64_t bytes);

  int64_t limit() const { return limit_; }
  int64_t used() const;

 private:
  friend class ByteGrant;
  void GiveBack(int64_t bytes);

  const int64_t limit_;
  mutable Mutex mutex_;
  int64_t used_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BYTE_BUDGET_H_
