#include "core/backend_cpu.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "core/element_type.h"
#include "core/kernels/accumulate.h"
#include "core/kernels/advance.h"
#include "core/kernels/target.h"

namespace fisherd::core {
namespace {

// What one tile reads of the right side in a pass stays in a second-level cache while the tile's
// rows go by.
constexpr int64_t kCacheBytes = 384 << 10;
constexpr int64_t kLeastTileRows = 128;
constexpr int64_t kMostTileRows = 512;

// What one tile reads of the left side stays in the last cache for the tiles beside it, whoever
// else uses that cache.
constexpr int64_t kLeftBytes = 1 << 20;

// Tiles for each thread, so that the last ones to finish do not keep the others waiting for long.
constexpr int64_t kTilesPerThread = 8;

// Fewer multiply-adds than this are done sooner than other threads have woken up.
constexpr double kParallelWork = 1 << 20;
constexpr int64_t kParallelSize = 1 << 18;  // elements that are only added up

struct Tiling {
  int64_t rows;
  int64_t cols;
};

int64_t Tiles(const Tiling& tiling, int64_t rows, int64_t cols) {
  return ((rows + tiling.rows - 1) / tiling.rows) * ((cols + tiling.cols - 1) / tiling.cols);
}

// As wide as the cache allows, because the state is read and written along its rows; then as flat
// as the threads need.
template <typename T>
Tiling TilingFor(const kernels::AdvancePlan<T>& plan, int threads) {
  using Plan = kernels::AdvancePlan<T>;
  const int64_t depth = std::min(plan.depth(), kernels::kPassChains * kernels::kChainRows);
  int64_t rows = kMostTileRows;
  while (rows > kLeastTileRows && rows * plan.depth() * int64_t{sizeof(T)} > kLeftBytes) rows /= 2;
  int64_t bytes_per_col = depth * sizeof(T);
  if (plan.chains() > kernels::kPassChains) {  // so do the sums from pass to pass
    bytes_per_col = std::max<int64_t>(bytes_per_col, rows * sizeof(double));
  }
  const int64_t cols =
      std::max<int64_t>(kCacheBytes / bytes_per_col / Plan::kTileCols, 1) * Plan::kTileCols;
  Tiling tiling{.rows = rows, .cols = std::min(cols, plan.cols())};
  if (tiling.cols < plan.cols()) {  // equal parts rather than a narrow last one
    const int64_t parts = (plan.cols() + cols - 1) / cols;
    const int64_t panels = (plan.cols() + Plan::kTileCols - 1) / Plan::kTileCols;
    tiling.cols = (panels + parts - 1) / parts * Plan::kTileCols;
  }
  while (threads > 1 && tiling.rows > Plan::kTileRows &&
         Tiles(tiling, plan.rows(), plan.cols()) < threads * kTilesPerThread) {
    tiling.rows /= 2;
  }
  return tiling;
}

template <typename T>
double LargestOf(const std::vector<T>& parts) {
  double most = 0;
  for (const T part : parts) {
    if (!std::isfinite(part)) return part;
    most = std::max<double>(most, part);
  }
  return most;
}

template <typename T>
double AdvanceRows(const AdvanceStep& step, ComputePool* pool, const Matrix& from, Matrix& to) {
  std::vector<kernels::TowerRows<T>> towers;
  for (const SquaredRows& tower : step.towers) {
    towers.push_back({.left = static_cast<const T*>(tower.left),
                      .right = static_cast<const T*>(tower.right),
                      .rows = tower.rows,
                      .scale = tower.scale});
  }
  const int64_t rows = to.shape().rows;
  const int64_t cols = to.shape().cols;
  const kernels::AdvancePlan<T> plan({.decay = step.decay,
                                      .weight = step.weight,
                                      .ones_column = step.ones_column,
                                      .left_cols = rows - step.ones_column,
                                      .right_cols = cols,
                                      .towers = towers});
  const double work = static_cast<double>(rows) * cols * (plan.depth() + 1);
  const bool parallel = pool != nullptr && work >= kParallelWork;
  const Tiling tiling = TilingFor(plan, parallel ? pool->threads() : 1);
  const int64_t tiles_across = (cols + tiling.cols - 1) / tiling.cols;
  const int64_t tiles = Tiles(tiling, rows, cols);
  std::vector<T> largest(step.find_largest ? tiles : 0);
  const auto advance_tile = [&](int64_t index) {
    // Across: the next tile reads the same columns of the left side, which the last cache still
    // has.
    const int64_t row = index / tiles_across * tiling.rows;
    const int64_t col = index % tiles_across * tiling.cols;
    const T most =
        plan.Advance({.first_row = row,
                      .last_row = std::min(row + tiling.rows, rows),
                      .first_col = col,
                      .last_col = std::min(col + tiling.cols, cols)},
                     step.find_largest, from.elements<T>().data(), to.elements<T>().data());
    if (step.find_largest) largest[index] = most;
  };
  if (parallel && tiles > 1) {
    pool->ParallelFor(tiles, advance_tile);
  } else {
    for (int64_t i = 0; i < tiles; ++i) advance_tile(i);
  }
  return LargestOf(largest);
}

// Adds what is ready-made, after the rows if there are any.
template <typename T>
double AddReduced(const AdvanceStep& step, double decay, ComputePool* pool, const Matrix& from,
                  Matrix& to) {
  std::vector<kernels::Term<T>> terms;
  for (const ReducedTower& tower : step.reduced) {
    terms.push_back({static_cast<const T*>(tower.elements), step.weight * tower.scale});
  }
  const int64_t size = to.shape().size();
  const int64_t parts = pool == nullptr || size < kParallelSize ? 1 : pool->threads();
  std::vector<T> largest(parts);
  const auto add_part = [&](int64_t part) {
    const int64_t first = part * size / parts;
    std::vector<kernels::Term<T>> here = terms;
    for (auto& term : here) term.elements += first;
    largest[part] =
        kernels::Accumulate<T>(decay, here, (part + 1) * size / parts - first,
                               from.elements<T>().data() + first, to.elements<T>().data() + first);
  };
  if (parts > 1) {
    pool->ParallelFor(parts, add_part);
  } else {
    add_part(0);
  }
  return LargestOf(largest);
}

}  // namespace

std::string BackendCpu::name() const {
  return absl::StrCat("cpu (", kernels::CurrentTarget(), ")");
}

double BackendCpu::Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) {
  return WithStateType(to.shape().dtype, [&]<typename T>(std::type_identity<T>) {
    if (step.reduced.empty()) return AdvanceRows<T>(step, pool_, from, to);
    if (step.towers.empty()) return AddReduced<T>(step, step.decay, pool_, from, to);
    const double most = AdvanceRows<T>(step, pool_, from, to);
    return std::isfinite(most) ? AddReduced<T>(step, 1, pool_, to, to) : most;
  });
}

}  // namespace fisherd::core
