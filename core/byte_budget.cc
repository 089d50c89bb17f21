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
  if (!Take(bytes)) return std::nullopt;
  return ByteGrant(this, bytes);
}

bool ByteBudget::Take(int64_t bytes) {
  MutexLock lock(&mutex_);
  return queue_.Take(bytes);
}

bool ByteBudget::TakeInTurn(const std::shared_ptr<RoomWaiter>& waiter, int64_t bytes) {
  bool taken = false;
  {
    MutexLock lock(&mutex_);
    taken = queue_.TakeInTurn(waiter, bytes);
  }
  if (taken) TellFirst();  // it may have left the head of the queue to another
  return taken;
}

void ByteBudget::Leave(const std::shared_ptr<RoomWaiter>& waiter) {
  {
    MutexLock lock(&mutex_);
    queue_.Leave(waiter);
  }
  TellFirst();
}

void ByteBudget::GiveBack(int64_t bytes) {
  {
    MutexLock lock(&mutex_);
    queue_.GiveBack(bytes);
  }
  TellFirst();
}

void ByteBudget::TellFirst() {
  std::optional<std::shared_ptr<RoomWaiter>> first;
  {
    MutexLock lock(&mutex_);
    first = queue_.Ready();
  }
  if (first.has_value()) (*first)->OnRoom();
}

int64_t ByteBudget::used() const {
  MutexLock lock(&mutex_);
  return queue_.used();
}

}  // namespace fisherd::core
