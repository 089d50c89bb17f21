// A registry with everything around it, and blocking ways to use its factors.

#ifndef FISHERD_TESTS_CORE_FACTOR_HARNESS_H_
#define FISHERD_TESTS_CORE_FACTOR_HARNESS_H_

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/compute_pool.h"
#include "core/error.h"
#include "core/factor_registry.h"
#include "tests/core/test_backend.h"

namespace fisherd::core {

using Floats = std::vector<float>;

inline std::string ReasonOf(const absl::Status& status) {
  const auto details = GetErrorDetails(status);
  return details.has_value() ? details->reason : "";
}

// The elements of a FLOAT32 matrix, wherever it is.
inline Floats FloatsOf(const Matrix& matrix) {
  const auto host = OnHost({std::shared_ptr<void>(), &matrix});
  EXPECT_TRUE(host.ok()) << host.status();
  const auto elements = (*host)->elements<float>();
  return {elements.begin(), elements.end()};
}

class CountingListener : public ProgressListener {
 public:
  void OnProgress(const std::shared_ptr<Factor>&) override {
    MutexLock lock(&mutex_);
    ++calls_;
    changed_.NotifyAll();
  }
  void OnHold(const std::shared_ptr<Factor>&, int tower, int64_t step) override {
    MutexLock lock(&mutex_);
    holds_.push_back({tower, step});
    changed_.NotifyAll();
  }
  int calls() const {
    MutexLock lock(&mutex_);
    return calls_;
  }
  void AwaitCalls(int calls) {
    MutexLock lock(&mutex_);
    while (calls_ < calls) changed_.Wait(&mutex_);
  }
  // The next one; waits for it.
  std::pair<int, int64_t> TakeHold() {
    MutexLock lock(&mutex_);
    while (holds_.empty()) changed_.Wait(&mutex_);
    const auto hold = holds_.front();
    holds_.erase(holds_.begin());
    return hold;
  }

 private:
  mutable Mutex mutex_;
  CondVar changed_;
  int calls_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::pair<int, int64_t>> holds_ ABSL_GUARDED_BY(mutex_);
};

// A backend whose steps wait while it is held, so that tests can look at a factor during a commit.
class GatedBackend : public Backend {
 public:
  std::string name() const override { return "gated"; }
  std::unique_ptr<Matrix> NewMatrix(const MatrixShape& shape) override {
    return inner_.NewMatrix(shape);
  }
  HostMemory* batch_memory() override { return inner_.batch_memory(); }
  absl::Status Check() const override {
    return lost_ ? MakeError(absl::StatusCode::kUnavailable, reason::kDeviceLost, "lost")
                 : inner_.Check();
  }
  double Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) override {
    {
      MutexLock lock(&mutex_);
      ++entered_;
      changed_.NotifyAll();
      while (held_) changed_.Wait(&mutex_);
    }
    if (lost_) return std::numeric_limits<double>::quiet_NaN();
    return inner_.Advance(step, from, to);
  }
  // As if a device had failed.
  void Lose() { lost_ = true; }
  void Hold() {
    MutexLock lock(&mutex_);
    held_ = true;
    entered_ = 0;
  }
  void AwaitEntered() {
    MutexLock lock(&mutex_);
    while (entered_ == 0) changed_.Wait(&mutex_);
  }
  void Release() {
    MutexLock lock(&mutex_);
    held_ = false;
    changed_.NotifyAll();
  }

 private:
  Backend& inner_ = TestBackend();
  std::atomic<bool> lost_ = false;
  Mutex mutex_;
  CondVar changed_;
  bool held_ ABSL_GUARDED_BY(mutex_) = false;
  int entered_ ABSL_GUARDED_BY(mutex_) = 0;
};

class FactorTest : public ::testing::Test {
 protected:
  explicit FactorTest(RegistryOptions options = {.state_budget = 1 << 20,
                                                 .batch_budget = 1 << 20}) {
    options.backend = &backend_;
    options.pool = &*pool_;
    options.timers = &*timers_;
    options.epoch = 77;
    options.first_incarnation = 1000;
    registry_.emplace(options);
  }
  ~FactorTest() override {
    timers_.reset();  // schedules on the pool,
    pool_.reset();    // whose tasks use the registry
  }

  static FactorSpec Spec(int64_t inputs, int64_t outputs, bool bias = true, int towers = 1) {
    FactorSpec spec;
    spec.kind = FullyConnectedDiagonalSpec{inputs, outputs, bias};
    spec.towers = towers;
    return spec;
  }
  // [2, 2] with bias, the example of SPEC §7.
  static FactorSpec Golden(int towers = 1) { return Spec(2, 2, true, towers); }

  std::shared_ptr<Factor> Create(const std::string& name, const FactorSpec& spec) {
    auto created = registry_->Create(name, spec);
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->factor : nullptr;
  }

  // A header for float tensors; change what the test is about.
  static BatchHeader Header(const Factor& factor, int64_t step, int64_t rows, int tower = 0) {
    const auto& sizes = std::get<FullyConnectedDiagonalSpec>(factor.spec().kind);
    BatchHeader header;
    header.incarnation = factor.Describe().version.incarnation;
    header.step = step;
    header.tower = tower;
    header.rows = rows;
    header.decay = 0.5;
    header.tensors = {{TensorRole::kInputs, 0, DataType::kFloat32, {rows, sizes.input_size}}};
    for (int s = 0; s < factor.spec().sources; ++s) {
      header.tensors.push_back(
          {TensorRole::kOutputsGrads, s, DataType::kFloat32, {rows, sizes.output_size}});
    }
    header.digest[0] = static_cast<std::byte>(step);
    header.digest[1] = static_cast<std::byte>(tower);
    return header;
  }

  // Fills a pending batch with the tensors' elements, one after the other, in one frame.
  static absl::Status Fill(PendingBatch& batch, const Floats& elements, int64_t rows) {
    const std::string_view bytes(reinterpret_cast<const char*>(elements.data()),
                                 elements.size() * sizeof(float));
    return batch.rows().AddRows(0, rows, static_cast<int64_t>(bytes.size()), {{bytes}},
                                Crc32c(0, std::as_bytes(std::span(elements))));
  }

  // Sends a whole batch on `stream`, which must have opened the tower.
  static absl::Status Send(Factor& factor, const BatchHeader& header, const Floats& elements,
                           const ProgressListener* stream) {
    absl::StatusOr<BatchAdmission> batch = factor.Begin(header, stream);
    if (!batch.ok()) return batch.status();
    if (batch->on_hold) return absl::UnavailableError("on hold");
    if (batch->pending == nullptr) return absl::OkStatus();
    const int64_t rows = header.tensors[0].shape[0];
    if (absl::Status status = Fill(*batch->pending, elements, rows); !status.ok()) return status;
    return batch->pending->Complete(rows);
  }

  // A listener that has opened the tower for a client.
  static std::shared_ptr<CountingListener> OpenTower(Factor& factor, int tower, int client = 1,
                                                     bool take_over = false) {
    auto stream = std::make_shared<CountingListener>();
    const auto progress =
        factor.Open({.tower = tower, .client = ClientOf(client), .take_over = take_over}, stream);
    EXPECT_TRUE(progress.ok()) << progress.status();
    return stream;
  }
  static ClientId ClientOf(int n) {
    ClientId id{};
    id[0] = static_cast<std::byte>(n);
    return id;
  }

  // The answer to a read, waited for.
  static absl::StatusOr<ReadResult> Read(Factor& factor, ReadRequest request = {}) {
    std::promise<absl::StatusOr<ReadResult>> answer;
    factor.StartRead(request,
                     [&](absl::StatusOr<ReadResult> r) { answer.set_value(std::move(r)); });
    return answer.get_future().get();
  }
  // A read after `step` has ended.
  static absl::StatusOr<ReadResult> ReadAfter(Factor& factor, int64_t step, OperatorSpec op = {}) {
    return Read(factor, {.op = std::move(op),
                         .min_version = MinVersion{factor.Describe().version.incarnation, step}});
  }
  static Floats Elements(const LinearOperator& op) {
    const TensorView view;
    Floats result(op.dimension());
    EXPECT_EQ(op.Elements(view, 0, 0, std::as_writable_bytes(std::span(result))), absl::OkStatus());
    return result;
  }
  static Floats Elements(const absl::StatusOr<ReadResult>& result) {
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() && result->op != nullptr ? Elements(*result->op) : Floats();
  }

  // A = [[1,2],[3,4]], G = [[1,−1],[2,0.5]], and what they give (SPEC §7).
  const Floats golden_batch_ = {1, 2, 3, 4, 1, -1, 2, 0.5};
  const Floats golden_covariance_ = {18.5, 1.625, 34, 4, 2.5, 0.625};

  GatedBackend backend_;
  std::optional<ComputePool> pool_{std::in_place, 2};
  std::optional<TimerQueue> timers_{std::in_place};
  std::optional<FactorRegistry> registry_;
};

}  // namespace fisherd::core

#endif  // FISHERD_TESTS_CORE_FACTOR_HARNESS_H_
