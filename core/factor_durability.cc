// What a factor gives to be saved, and hears of it (SPEC §5).

#include <algorithm>
#include <future>
#include <memory>
#include <utility>

#include "core/error.h"
#include "core/factor.h"

namespace fisherd::core {

FactorImage Factor::Life() const {
  MutexLock lock(&mutex_);
  return LifeLocked();
}

FactorImage Factor::LifeLocked() const {
  FactorImage image{.name = name_,
                    .spec = spec_,
                    .version = current_->version,
                    .total_weight = current_->total_weight,
                    .bound = current_->bound,
                    .label = current_->label,
                    .plan = asynchronous() ? TowerPlan(active_towers_) : lanes_[0].gather.plan(),
                    .ledgers = {},
                    .results = {},
                    .state = nullptr};
  image.version.incarnation = incarnation_;
  for (const auto& registration : results_.all()) {
    image.results.push_back({registration->op, registration->policy, registration->cached});
  }
  return image;
}

absl::StatusOr<FactorImage> Factor::ImageLocked() {
  if (retired_) return OldIncarnation(incarnation_);
  if (absl::Status status = environment_.backend->Check(); !status.ok()) return status;
  if (in_place_) return absl::UnavailableError("a step is being computed");
  const std::shared_ptr<const StateVersion> pinned = Pin(current_);
  if (pinned == nullptr) {
    return MakeError(absl::StatusCode::kResourceExhausted, reason::kStateBudget,
                     "the state budget has no room for one more pinned version",
                     {{"factor", name_}});
  }
  FactorImage image = LifeLocked();
  for (const Lane& lane : lanes_) image.ledgers.push_back(lane.ledger);
  image.state = std::shared_ptr<const Matrix>(pinned, pinned->matrix.get());
  return image;
}

absl::StatusOr<FactorImage> Factor::TryImage() {
  absl::StatusOr<FactorImage> image;  // destroyed after the lock
  MutexLock lock(&mutex_);
  image = ImageLocked();
  return image;
}

void Factor::StartImage(ImageCallback callback) {
  {
    MutexLock lock(&mutex_);
    images_.push_back(std::move(callback));
  }
  RunImages();
}

absl::StatusOr<FactorImage> Factor::AwaitImage(absl::Duration patience) {
  // Shared: it may come after this has given up, and is then let go.
  const auto promise = std::make_shared<std::promise<absl::StatusOr<FactorImage>>>();
  auto future = promise->get_future();
  StartImage(
      [promise](absl::StatusOr<FactorImage> image) { promise->set_value(std::move(image)); });
  if (patience != absl::InfiniteDuration() &&
      future.wait_for(absl::ToChronoMicroseconds(patience)) != std::future_status::ready) {
    return absl::UnavailableError("steps leave no time to look at it");
  }
  return future.get();
}

void Factor::RunImages() {
  std::vector<ImageCallback> callbacks;
  std::vector<absl::StatusOr<FactorImage>> images;
  {
    MutexLock lock(&mutex_);
    if (in_place_ && environment_.backend->Check().ok()) return;  // WakeReads comes
    callbacks.swap(images_);
    for (size_t i = 0; i < callbacks.size(); ++i) images.push_back(ImageLocked());
  }
  for (size_t i = 0; i < callbacks.size(); ++i) callbacks[i](std::move(images[i]));
}

void Factor::SetDurable(const FactorImage& image) {
  Aftermath after;
  {
    MutexLock lock(&mutex_);
    if (retired_ || image.version.incarnation != incarnation_) return;
    bool advanced = false;
    for (size_t i = 0; i < image.ledgers.size() && i < lanes_.size(); ++i) {
      const int64_t durable = image.ledgers[i].next() - 1;
      advanced |= durable > lanes_[i].durable;
      lanes_[i].durable = std::max(lanes_[i].durable, durable);
    }
    if (!advanced) return;
    NotifyAll(after);
    environment_.watchers->Publish(EventLocked(FactorEventKind::kDurable));
  }
  SettleLater(std::move(after));
}

}  // namespace fisherd::core
