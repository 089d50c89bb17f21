// The kernel that fisherd is about: one product of packed squares with the moving average around
// it, in one pass over the state.

#ifndef FISHERD_CORE_KERNELS_ADVANCE_H_
#define FISHERD_CORE_KERNELS_ADVANCE_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/kernels/packed.h"

namespace fisherd::kernels {

// Rows of a chain (SPEC §1), and how many chains a tile goes through before it looks at the state:
// a pass.
inline constexpr int64_t kChainRows = 256;
inline constexpr int64_t kPassChains = 4;

// One tower's rows: `left` is A∘A [rows, I] packed in panels of kLeftPanelLines, `right` is
// Σ_s G_s∘G_s [rows, O] in panels of kRightPanelLines.
template <typename T>
struct TowerRows {
  const T* left = nullptr;
  const T* right = nullptr;
  int64_t rows = 0;
  double scale = 1;  // what its product is multiplied by
};

// A step, cut into the chains that its sum is made of. Reusable for any number of tiles, by any
// number of threads at once; the rows must outlive it.
//
//   to = decay·from + weight·Σ_t scale_t·[left_t 1]ᵀ·right_t        [H, O], row-major
//
// The sum is defined, so that its bits are: rows in order, towers ascending, in chains of 256 rows.
// A chain goes on over towers of the same scale (so that T towers of n rows are one tower of T·n),
// and ends where the scale changes. Within a chain it is one multiply-add a row, in T. Of every
// four chains, a pass, those that follow on each other with the same scale are added in order, in
// T: a run. Then, with w = weight·scale of the run, taken in 64 bits:
//   one run r, T = float:  hi(decay)·from + (hi(w)·r + lo(decay)·from), a multiply-add in T for
//                          each +, where hi is x rounded to T and lo what that leaves. So the
//                          arithmetic is T's, and still a decay near 1 is not rounded to 32 bits,
//                          which would drift from total_weight.
//   otherwise:             decay·from + Σ w·r in order, multiply-adds in 64 bits, rounded once.
//                          (Also for one run if w or decay is so small or large that hi or lo
//                          might leave T's normal range.)
// The same bits for every tiling, in place or not, and on every target that has FMA; without FMA a
// multiply-add rounds twice.
template <typename T>
class AdvancePlan {
 public:
  struct Step {
    double decay = 0;
    double weight = 0;
    bool ones_column = false;  // as if `left` had a last column of ones: the bias row
    int64_t left_cols = 0;     // I
    int64_t right_cols = 0;    // O
    std::span<const TowerRows<T>> towers;
  };
  explicit AdvancePlan(const Step& step);
  AdvancePlan(const AdvancePlan&) = delete;
  AdvancePlan& operator=(const AdvancePlan&) = delete;

  // Elements [first_row, last_row) × [first_col, last_col) of the state. Firsts are multiples of
  // kTileRows and kTileCols, lasts too or the state's ends.
  struct Tile {
    int64_t first_row = 0;
    int64_t last_row = 0;
    int64_t first_col = 0;
    int64_t last_col = 0;
  };
  static constexpr int64_t kTileRows = kLeftPanelLines * kLine<T>;
  static constexpr int64_t kTileCols = kRightPanelLines * kLine<T>;

  // Computes one tile: reads it from `from`, writes it to `to`; both are whole states, and may be
  // the same. Returns the largest element written if `find_largest` (infinity or NaN if one is not
  // finite), else 0.
  T Advance(const Tile& tile, bool find_largest, const T* from, T* to) const;

  int64_t rows() const { return step_.left_cols + step_.ones_column; }  // H
  int64_t cols() const { return step_.right_cols; }                     // O
  int64_t depth() const { return depth_; }                              // rows of all towers

  // Rows of a chain that come from one tower.
  struct Segment {
    const TowerRows<T>* tower = nullptr;
    int64_t first = 0;
    int64_t rows = 0;
  };
  struct Chain {
    int first_segment = 0;
    int segments = 0;
    int64_t rows = 0;
    double weight = 0;       // weight·scale
    bool continues = false;  // the run of the chain before
  };
  int64_t chains() const { return static_cast<int64_t>(chains_.size()); }

 private:
  bool Gather();
  void CutIntoChains(std::span<const TowerRows<T>> towers);

  Step step_;
  int64_t depth_ = 0;
  bool narrow_ = false;    // one run, for which T's own arithmetic does, as said above
  TowerRows<T> gathered_;  // all towers' rows, if each has few
  std::unique_ptr<T[], void (*)(T*)> gathered_elements_;
  std::vector<Segment> segments_;
  std::vector<Chain> chains_;
};

// The target that Advance runs on.
std::string AdvanceTarget();

}  // namespace fisherd::kernels

#endif  // FISHERD_CORE_KERNELS_ADVANCE_H_
