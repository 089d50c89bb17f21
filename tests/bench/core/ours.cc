#include "tests/bench/core/ours.h"

#include <algorithm>
#include <future>

#include "core/kernels/ingest.h"
#include "tests/bench/core/parallel.h"
#include "tests/bench/core/timing.h"

namespace fisherd::bench {
namespace {

// How long the share of ingest is measured.
constexpr double kShareSeconds = 0.1;
constexpr int kShareTimes = 1000;

}  // namespace

Ours::Ours(Problem& problem, int towers, core::Matrix& to)
    : problem_(problem),
      to_(to),
      tower_rows_(problem.sizes.depth() / towers),
      left_shape_{tower_rows_, problem.sizes.inputs, kernels::kLeftPanelLines},
      right_shape_{tower_rows_, problem.sizes.outputs, kernels::kRightPanelLines},
      pool_(problem.sizes.threads > 1 ? std::make_unique<core::ComputePool>(problem.sizes.threads)
                                      : nullptr),
      backend_(pool_.get()) {
  for (int tower = 0; tower < towers; ++tower) {
    towers_.push_back({.first_row = tower * tower_rows_,
                       .left = Array<float>(kernels::PackedSize<float>(left_shape_)),
                       .right = Array<float>(kernels::PackedSize<float>(right_shape_))});
  }
}

void Ours::OnPool(const std::function<void()>& work) {
  if (pool_ == nullptr) return work();
  std::promise<void> done;
  pool_->Schedule([&] {
    work();
    done.set_value();
  });
  done.get_future().wait();
}

void Ours::Step() {
  Ingest();
  Advance();
}

double Ours::IngestShare() {
  double ingest = 0;
  double all = 0;
  OnPool([&] {
    for (int times = 0; times < 3 || (all < kShareSeconds && times < kShareTimes); ++times) {
      const double seconds = Seconds([&] { Ingest(); });
      ingest += seconds;
      all += seconds + Seconds([&] { Advance(); });
    }
  });
  return ingest / all;
}

void Ours::Ingest() {
  const Case& sizes = problem_.sizes;
  const int64_t row_elements = sizes.inputs + sizes.sources * sizes.outputs;
  const int64_t chunk = std::max<int64_t>(kWorthAThread / row_elements, 1);
  const int64_t chunks = (tower_rows_ + chunk - 1) / chunk;  // of each tower
  // Less than two threads' worth is not worth waking one up.
  const bool little = problem_.sizes.depth() * row_elements < 2 * kWorthAThread;
  Parallel(little ? nullptr : pool_.get(), chunks * towers_.size(), [&](int64_t index) {
    const int64_t first = index % chunks * chunk;
    IngestRows(towers_[index / chunks], first, std::min(chunk, tower_rows_ - first));
  });
}

void Ours::IngestRows(Tower& tower, int64_t first, int64_t rows) {
  const auto ingest = [&](const float* tensor, const kernels::PackedShape& shape, bool accumulate,
                          float* packed) {
    const float* from = tensor + (tower.first_row + first) * shape.cols;
    kernels::Ingest<float, float>({.from = reinterpret_cast<const std::byte*>(from),
                                   .first = first * shape.cols,
                                   .count = rows * shape.cols,
                                   .accumulate = accumulate},
                                  shape, packed);
  };
  ingest(problem_.inputs(), left_shape_, false, tower.left.data());
  for (int source = 0; source < problem_.sizes.sources; ++source) {
    ingest(problem_.grads(source), right_shape_, source > 0, tower.right.data());
  }
}

void Ours::Advance() {
  std::vector<core::SquaredRows> rows;
  for (const Tower& tower : towers_) {
    rows.push_back({.left = tower.left.data(),
                    .right = tower.right.data(),
                    .rows = tower_rows_,
                    .scale = problem_.scale()});
  }
  backend_.Advance(
      {.decay = kDecay, .weight = kWeight, .ones_column = problem_.sizes.bias, .towers = rows},
      problem_.matrix(), to_);
}

}  // namespace fisherd::bench
