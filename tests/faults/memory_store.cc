#include "tests/faults/memory_store.h"

#include <algorithm>
#include <utility>

#include "core/clock.h"

namespace fisherd::faults {

absl::Status MemoryStore::RecordFactor(const core::FactorImage& image) {
  core::MutexLock lock(&mutex_);
  if (frozen_) return absl::UnavailableError("frozen");
  const bool asynchronous = image.spec.update_mode == core::UpdateMode::kAsynchronous;
  Disk& disk = disks_[image.name];
  if (disk.image.version.incarnation == image.version.incarnation) {
    disk.image.plan = image.plan;
    return absl::OkStatus();
  }
  disk = {.image = image, .outcomes = {}, .ledgers = {}};
  disk.image.ledgers.assign(asynchronous ? image.spec.towers : 1, core::Ledger());
  return absl::OkStatus();
}

absl::Status MemoryStore::RecordDeletion(std::string_view name) {
  core::MutexLock lock(&mutex_);
  disks_.erase(std::string(name));
  return absl::OkStatus();
}

void MemoryStore::RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                                const core::StepRun& run, Done done) {
  {
    core::MutexLock lock(&mutex_);
    Disk& disk = disks_[factor];
    if (!frozen_ && disk.image.version.incarnation == incarnation) {
      disk.outcomes.push_back(run);
      disk.ledgers.push_back(ledger);
    }
  }
  done(absl::OkStatus());
}

void MemoryStore::LogStep(core::StepRecord, Done done) {
  done(absl::UnimplementedError("this store has no log"));
}

void MemoryStore::StepEnded(const std::shared_ptr<core::Factor>& factor) {
  absl::StatusOr<core::FactorImage> image = factor->TryImage();
  if (!image.ok()) return;
  if (saves_(image->name, image->ledgers[0].next() - 1)) {
    {
      core::MutexLock lock(&mutex_);
      if (frozen_) return;
      Disk& disk = disks_[image->name];
      disk.image = *image;
      std::shared_ptr<core::Matrix> copy = core::Matrix::New(image->state->shape());
      copy->CopyFrom(*image->state).IgnoreError();
      disk.image.state = std::move(copy);
    }
    factor->SetDurable(*image);
  }
  core::MutexLock lock(&mutex_);
  if (frozen_) return;
  ++ended_;
  changed_.NotifyAll();
}

void MemoryStore::Freeze() {
  core::MutexLock lock(&mutex_);
  frozen_ = true;
}

absl::Status MemoryStore::Thaw(core::FactorRegistry& registry) {
  core::MutexLock lock(&mutex_);
  frozen_ = false;
  for (auto& [factor, disk] : disks_) {
    core::FactorImage image = disk.image;
    for (size_t i = 0; i < disk.outcomes.size(); ++i) {
      core::Ledger& ledger = image.ledgers[static_cast<size_t>(disk.ledgers[i])];
      if (disk.outcomes[i].first >= ledger.next()) ledger.Remember(disk.outcomes[i]);
    }
    const absl::Status status =
        registry.Restore(image, [&](const auto&, auto&, core::Matrix& state) {
          return image.state != nullptr ? state.CopyFrom(*image.state) : state.Fill(0);
        });
    if (!status.ok()) return status;
  }
  return absl::OkStatus();
}

int64_t MemoryStore::saved_step(const std::string& factor) const {
  core::MutexLock lock(&mutex_);
  const auto disk = disks_.find(factor);
  return disk == disks_.end() ? 0 : disk->second.image.ledgers[0].next() - 1;
}

int64_t MemoryStore::ended() const {
  core::MutexLock lock(&mutex_);
  return ended_;
}

void MemoryStore::AwaitEnded(int64_t steps, absl::Time deadline) {
  core::MutexLock lock(&mutex_);
  while (ended_ < steps && core::SteadyNow() < deadline) changed_.WaitUntil(&mutex_, deadline);
}

}  // namespace fisherd::faults
