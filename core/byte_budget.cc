#include "core/byte_budget.h"

namespace fisherd::core {

ByteGrant& ByteGrant::operator=(ByteGrant&& other) noexcept {
  if (this == &other) return *this;
  if (budget_ != nullptr) budget_->GiveBack(bytes_);
  budget_ = std::exchange(other.budget_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

ByteGrant::~ByteGrant() {
  if (budget_ != nullptr) budget_->GiveBack(bytes_);
}

std::optional<ByteGrant> ByteBudget::TryTake(int64_t bytes) {
  MutexLock lock(&mutex_);
  if (bytes > limit_ - used_) return std::nullopt;
  used_ += bytes;
  return ByteGrant(this, bytes);
}

int64_t ByteBudget::used() const {
  MutexLock lock(&mutex_);
  return used_;
}

void ByteBudget::GiveBack(int64_t bytes) {
  MutexLock lock(&mutex_);
  used_ -= bytes;
}

}  // namespace fisherd::core
