#include "client/cpp/replay_buffer.h"

#include <algorithm>
#include <iterator>

namespace fisherd {

ReplayBuffer::Range ReplayBuffer::range() const {
  if (incarnation_ == 0) return {};
  return {.from = kept_.empty() ? next_step_ : kept_.front().step, .through = next_step_ - 1};
}

bool ReplayBuffer::OnOpened(const Progress& progress) {
  if (incarnation_ == 0) {
    incarnation_ = progress.incarnation;
    next_step_ = progress.next;
  } else if (progress.incarnation != incarnation_) {
    return false;
  }
  // Another epoch may have lost what the one before had counted, so nothing of that is remembered.
  // In the same one `next` only rises.
  epoch_ = progress.epoch;
  open_ = true;
  next_ = progress.next;
  durable_ = progress.durable;
  open_through_ = progress.open_through;
  held_from_ = 0;
  pressed_ = false;
  send_next_ = progress.next;
  Advance(progress);
  return true;
}

void ReplayBuffer::OnAck(const Progress& progress) {
  if (!open_ || progress.incarnation != incarnation_ || progress.epoch != epoch_) return;
  Advance(progress);
}

void ReplayBuffer::Advance(const Progress& progress) {
  next_ = std::max(next_, progress.next);
  durable_ = std::max(durable_, progress.durable);
  open_through_ = std::max(open_through_, progress.open_through);
  if (std::max(open_through_, next_ - 1) >= held_from_) held_from_ = 0;
  window_ = progress.window;
  if (open_through_ >= next_ + window_ - 1) pressed_ = false;
  if (progress.first > progress.next) next_step_ = std::max(next_step_, progress.first);
  for (const Run& run : progress.missed) AddMissed(run);
  Free();
}

void ReplayBuffer::OnHold(int64_t step) {
  if (!open_ || step < next_) return;
  open_through_ = std::min(open_through_, step - 1);
  held_from_ = held_from_ == 0 ? step : std::min(held_from_, step);
  pressed_ = true;
  send_next_ = std::min(send_next_, step);
}

bool ReplayBuffer::OnRefused(int64_t step) {
  const bool pushed =
      std::ranges::any_of(kept_, [&](const Kept& batch) { return batch.step == step; });
  if (!open_ || !pushed) return false;
  Drop([&](const Kept& batch) { return batch.step >= step; });
  next_step_ = step;
  send_next_ = std::min(send_next_, step);
  return true;
}

void ReplayBuffer::OnLate(int64_t step) {
  Drop([&](const Kept& batch) { return batch.step == step; });
}

void ReplayBuffer::Push(int64_t bytes, Payload payload) {
  kept_.push_back({.step = next_step_++, .bytes = bytes, .payload = std::move(payload)});
  bytes_ += bytes;
}

const ReplayBuffer::Kept* ReplayBuffer::NextToSend() const {
  if (!open_) return nullptr;
  const auto batch = std::ranges::lower_bound(kept_, std::max(send_next_, next_), {}, &Kept::step);
  if (batch == kept_.end() || batch->step >= next_ + window_) return nullptr;
  const int64_t open = std::max(open_through_, next_ - 1);
  if (batch->step > open && held_from_ != 0) return nullptr;
  if (batch->step > open + 1 && pressed_) return nullptr;
  return &*batch;
}

void ReplayBuffer::BeginSend() { send_next_ = NextToSend()->step + 1; }

bool ReplayBuffer::all_sent() const {
  return kept_.empty() || kept_.back().step < (open_ ? std::max(send_next_, next_) : next_);
}

void ReplayBuffer::Clear() {
  kept_.clear();
  bytes_ = 0;
}

const ReplayBuffer::Run* ReplayBuffer::FindMissed(int64_t step) const {
  const auto run = std::ranges::lower_bound(missed_, step, {}, &Run::last);
  return run != missed_.end() && run->first <= step ? &*run : nullptr;
}

// What a stream was told of comes again with the next one.
void ReplayBuffer::AddMissed(const Run& run) {
  int64_t step = run.first;
  while (step <= run.last) {
    const auto after = std::ranges::lower_bound(missed_, step, {}, &Run::last);
    if (after != missed_.end() && after->first <= step) {
      step = after->last + 1;
      continue;
    }
    const int64_t last = after == missed_.end() ? run.last : std::min(run.last, after->first - 1);
    if (after != missed_.begin() && std::prev(after)->last + 1 == step &&
        std::prev(after)->failed == run.failed) {
      std::prev(after)->last = last;
    } else {
      missed_.insert(after, {.first = step, .last = last, .failed = run.failed});
    }
    step = last + 1;
  }
}

void ReplayBuffer::Free() {
  Drop([&](const Kept& batch) {
    return batch.step < next_ && (batch.step <= durable_ || FindMissed(batch.step) != nullptr);
  });
}

template <typename Predicate>
void ReplayBuffer::Drop(Predicate predicate) {
  std::erase_if(kept_, [&](const Kept& batch) {
    if (!predicate(batch)) return false;
    bytes_ -= batch.bytes;
    return true;
  });
}

}  // namespace fisherd
