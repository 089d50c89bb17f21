#include "tests/faults/memory_store.h"

#include <utility>

#include "absl/time/clock.h"

namespace fisherd::faults {

void MemoryStore::RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                                const core::StepRun& run) {
  core::MutexLock lock(&mutex_);
  Disk& disk = disks_[factor];
  if (frozen_ || disk.image.version.incarnation != incarnation) return;
  for (int64_t step = run.first; step <= run.last; ++step) {
    disk.ledgers[static_cast<size_t>(ledger)].Record(run.outcome, run.counted);
  }
}

bool MemoryStore::StepEnded(const core::FactorImage& image) {
  const bool save = saves_(image.name, image.ledgers[0].next() - 1);
  core::MutexLock lock(&mutex_);
  if (frozen_) return false;
  ++ended_;
  disks_[image.name].ledgers = image.ledgers;
  if (save) Save(image);
  changed_.NotifyAll();
  return save;
}

void MemoryStore::Save(const core::FactorImage& image) {
  Disk& disk = disks_[image.name];
  disk.image = image;
  disk.state = core::Matrix::New(image.state->shape());
  disk.state->CopyFrom(*image.state);
  disk.image.state = disk.state.get();
}

void MemoryStore::SaveNew(const std::string& factor, const core::FactorSpec& spec,
                          uint64_t incarnation, const core::MatrixShape& shape) {
  const std::unique_ptr<core::Matrix> zeros = core::Matrix::New(shape);
  zeros->Fill(0);
  const bool asynchronous = spec.update_mode == core::UpdateMode::kAsynchronous;
  const core::FactorImage image = {
      .name = factor,
      .spec = spec,
      .version = {.incarnation = incarnation, .epoch = 0, .step = 0},
      .plan = core::TowerPlan(asynchronous ? 1 : spec.towers),
      .ledgers = std::vector<core::Ledger>(asynchronous ? spec.towers : 1),
      .state = zeros.get()};
  core::MutexLock lock(&mutex_);
  disks_[factor].ledgers = image.ledgers;
  Save(image);
}

void MemoryStore::Freeze() {
  core::MutexLock lock(&mutex_);
  frozen_ = true;
}

std::vector<core::FactorImage> MemoryStore::Thaw() {
  core::MutexLock lock(&mutex_);
  frozen_ = false;
  std::vector<core::FactorImage> images;
  for (auto& [factor, disk] : disks_) {
    images.push_back(disk.image);
    for (size_t i = 0; i < disk.ledgers.size(); ++i) {
      disk.ledgers[i].RollBack(disk.image.ledgers[i].next());
    }
    images.back().ledgers = disk.ledgers;
  }
  return images;
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
  while (ended_ < steps && absl::Now() < deadline) changed_.WaitUntil(&mutex_, deadline);
}

}  // namespace fisherd::faults
