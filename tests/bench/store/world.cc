#include "tests/bench/store/world.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "core/batch_reader.h"
#include "tests/bench/core/timing.h"

namespace fisherd::bench {
namespace {

void Check(const absl::Status& status) {
  if (status.ok()) return;
  std::fprintf(stderr, "store_bench: %s\n", status.ToString().c_str());
  std::exit(1);
}

}  // namespace

World::World(std::string directory) : directory_(std::move(directory)) { Open(); }
World::~World() { Close(); }

void World::Close() {
  store_->Stop();
  timers_.reset();
  pool_.reset();
  registry_.reset();
  store_.reset();
}

double World::Open() {
  auto store = server::Store::Open({.directory = directory_, .snapshot_interval = absl::Hours(24)});
  Check(store.status());
  store_ = *std::move(store);
  pool_.emplace(2);
  timers_.emplace();
  registry_.emplace(core::RegistryOptions{.backend = &backend_,
                                          .pool = &*pool_,
                                          .state_budget = int64_t{16} << 30,
                                          .batch_budget = int64_t{1} << 30,
                                          .timers = &*timers_,
                                          .store = store_.get(),
                                          .epoch = store_->epoch(),
                                          .first_incarnation = store_->first_incarnation()});
  return Seconds([&] { Check(store_->Start(&*registry_)); });
}

double World::Restart() {
  Close();
  return Open();
}

std::shared_ptr<core::Factor> World::Create(const std::string& name, int64_t bytes,
                                            core::DurabilityLevel level) {
  const auto side = static_cast<int64_t>(std::sqrt(static_cast<double>(bytes) / sizeof(float)));
  core::FactorSpec spec;
  spec.kind = core::FullyConnectedDiagonalSpec{side, side, false};
  spec.durability = level;
  auto created = registry_->Create(name, spec);
  Check(created.status());
  return created->factor;
}

double World::Save() {
  return Seconds([&] { Check(store_->Snapshot("", nullptr)); });
}

std::shared_ptr<Trainer> Trainer::Of(const std::shared_ptr<core::Factor>& factor, int64_t rows) {
  std::shared_ptr<Trainer> trainer(new Trainer(factor));
  const auto progress = factor->Open({.tower = 0, .client = {}, .take_over = true}, trainer);
  Check(progress.status());
  const int64_t side = std::get<core::FullyConnectedDiagonalSpec>(factor->spec().kind).input_size;
  trainer->batch_.assign(static_cast<size_t>(2 * side * rows), 1.5f);
  core::BatchHeader& header = trainer->header_;
  header.incarnation = progress->incarnation;
  header.step = progress->next - 1;
  header.rows = rows;
  header.decay = 0.5;
  header.tensors = {{core::TensorRole::kInputs, 0, core::DataType::kFloat32, {rows, side}},
                    {core::TensorRole::kOutputsGrads, 0, core::DataType::kFloat32, {rows, side}}};
  return trainer;
}

double Trainer::Step() {
  ++header_.step;
  const std::string_view bytes(reinterpret_cast<const char*>(batch_.data()),
                               static_cast<size_t>(batch_bytes()));
  return Seconds([&] {
    auto batch = factor_->Begin(header_, this);
    Check(batch.status());
    Check(batch->pending->rows().AddRows(0, header_.rows, batch_bytes(), {{bytes}}, std::nullopt));
    Check(batch->pending->Complete(header_.rows));
    core::MutexLock lock(&mutex_);
    while (next_ <= header_.step) changed_.Wait(&mutex_);
  });
}

void Trainer::OnProgress(const std::shared_ptr<core::Factor>& factor) {
  const int64_t next = factor->GetProgress(0, 1).next;
  core::MutexLock lock(&mutex_);
  next_ = next;
  changed_.NotifyAll();
}

void Trainer::OnHold(const std::shared_ptr<core::Factor>&, int, int64_t) {
  Check(absl::InternalError("a batch was put on hold"));
}

}  // namespace fisherd::bench
