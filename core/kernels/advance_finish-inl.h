// How the sums of chains meet the state, for one target: included once for each.

#if defined(FISHERD_CORE_KERNELS_ADVANCE_FINISH_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef FISHERD_CORE_KERNELS_ADVANCE_FINISH_INL_H_
#undef FISHERD_CORE_KERNELS_ADVANCE_FINISH_INL_H_
#else
#define FISHERD_CORE_KERNELS_ADVANCE_FINISH_INL_H_
#endif

#include <algorithm>
#include <type_traits>

#include "core/kernels/advance_job.h"
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <typename T>
using Tag = hn::CappedTag<T, kLine<T>>;

// decay·from + weight·sum in T, as advance.h defines it for one run. Its numbers are vectors
// already, which the compiler keeps in registers.
#define FISHERD_AVERAGE(T, pass)                                                                  \
  const Tag<T> average_tag;                                                                       \
  const T average_decay = static_cast<T>((pass).decay);                                           \
  const auto decay_high = hn::Set(average_tag, average_decay);                                    \
  const auto decay_low = hn::Set(average_tag, static_cast<T>((pass).decay - average_decay));      \
  const auto run_weight = hn::Set(average_tag, static_cast<T>((pass).weights[0]));                \
  const auto average = [&](auto from, auto sum) HWY_ATTR {                                        \
    if constexpr (std::is_same_v<T, double>) { /* nothing is left of the decay */                 \
      return hn::MulAdd(decay_high, from, hn::Mul(run_weight, sum));                              \
    } else {                                                                                      \
      return hn::MulAdd(decay_high, from, hn::MulAdd(run_weight, sum, hn::Mul(decay_low, from))); \
    }                                                                                             \
  }

// `count` elements that follow on each other, in T.
template <typename T>
HWY_INLINE void AverageRun(const Pass<T>& pass, const T* sums, int64_t count, const T* from,
                           T* to) {
  FISHERD_AVERAGE(T, pass);
  const Tag<T> d;
  const int64_t lanes = hn::Lanes(d);
  int64_t k = 0;
  for (; k + lanes <= count; k += lanes) {
    hn::StoreU(average(hn::LoadU(d, from + k), hn::LoadU(d, sums + k)), d, to + k);
  }
  if (k == count) return;
  HWY_ALIGN T part[2 * kLine<T>] = {};
  std::copy_n(from + k, count - k, part);
  std::copy_n(sums + k, count - k, part + kLine<T>);
  hn::Store(average(hn::Load(d, part), hn::Load(d, part + kLine<T>)), d, part);
  std::copy_n(part, count - k, to + k);
}

template <typename T>
HWY_INLINE hn::Vec<Tag<double>> LoadWide(const T* from) {
  const Tag<double> wide;
  if constexpr (std::is_same_v<T, double>) {
    return hn::LoadU(wide, from);
  } else {
    return hn::PromoteTo(wide, hn::LoadU(hn::Rebind<T, Tag<double>>(), from));
  }
}

template <typename T>
HWY_INLINE void StoreNarrow(hn::Vec<Tag<double>> value, T* to) {
  const Tag<double> wide;
  if constexpr (std::is_same_v<T, double>) {
    hn::StoreU(value, wide, to);
  } else if constexpr (HWY_TARGET == HWY_SCALAR) {
    *to = static_cast<T>(hn::GetLane(value));  // where DemoteTo makes overflow a finite number
  } else {
    const hn::Rebind<T, Tag<double>> narrow;
    hn::StoreU(hn::DemoteTo(narrow, value), narrow, to);
  }
}

// The runs of a block, in 64 bits: onto the sums, unless it begins; into the state, if it ends. The
// runs' sums are `run_stride` apart, rows of them `stride`.
template <bool kBegins, bool kEnds, typename T>
HWY_NOINLINE void FoldBlock(const Pass<T>& pass, const Block& block, const T* run,
                            int64_t run_stride, int64_t stride) {
  const Tag<double> wide;
  const int64_t lanes = hn::Lanes(wide);
  const int count = pass.runs;
  const double* weights = pass.weights;
  const auto decay = hn::Set(wide, pass.decay);
  const auto weight0 = hn::Set(wide, weights[0]);
  const auto weight1 = hn::Set(wide, weights[count > 1 ? 1 : 0]);
  const auto weight2 = hn::Set(wide, weights[count > 2 ? 2 : 0]);
  const auto weight3 = hn::Set(wide, weights[count > 3 ? 3 : 0]);
  for (int64_t r = 0; r < block.rows; ++r, run += stride) {
    double* HWY_RESTRICT sums = nullptr;
    if constexpr (!kBegins || !kEnds) {
      sums = pass.sums + (block.row + r - pass.tile.first_row) * pass.sums_stride + block.col -
             pass.tile.first_col;
    }
    const T* from = pass.from + (block.row + r) * pass.cols + block.col;
    T* to = pass.to + (block.row + r) * pass.cols + block.col;
    const auto sum = [&](int64_t k) HWY_ATTR {
      const auto x = LoadWide(run + k);
      auto s = kBegins ? hn::Mul(weight0, x) : hn::MulAdd(weight0, x, hn::Load(wide, sums + k));
      if (count > 1) s = hn::MulAdd(weight1, LoadWide(run + run_stride + k), s);
      if (count > 2) s = hn::MulAdd(weight2, LoadWide(run + 2 * run_stride + k), s);
      if (count > 3) s = hn::MulAdd(weight3, LoadWide(run + 3 * run_stride + k), s);
      return s;
    };
    if constexpr (!kEnds) {
      for (int64_t k = 0; k < block.cols; k += lanes) hn::Store(sum(k), wide, sums + k);
      continue;
    }
    int64_t k = 0;
    for (; k + lanes <= block.cols; k += lanes) {
      StoreNarrow(hn::MulAdd(decay, LoadWide(from + k), sum(k)), to + k);
    }
    if (const int64_t rest = block.cols - k; rest > 0) {
      HWY_ALIGN T part[kLine<double>] = {};
      std::copy_n(from + k, rest, part);
      StoreNarrow(hn::MulAdd(decay, LoadWide(part), sum(k)), part);
      std::copy_n(part, rest, to + k);
    }
  }
}

// A block whose runs' sums are in `run`. There and in the sums before, whole vectors may be
// read beyond the block's columns.
template <typename T>
HWY_NOINLINE void FinishBlock(const Pass<T>& pass, const Block& block, const T* run,
                              int64_t run_stride, int64_t stride) {
  if (pass.narrow) {
    for (int64_t r = 0; r < block.rows; ++r) {
      const int64_t at = (block.row + r) * pass.cols + block.col;
      AverageRun(pass, run + r * stride, block.cols, pass.from + at, pass.to + at);
    }
  } else if (pass.begins && pass.ends) {
    FoldBlock<true, true>(pass, block, run, run_stride, stride);
  } else if (pass.begins) {
    FoldBlock<true, false>(pass, block, run, run_stride, stride);
  } else if (pass.ends) {
    FoldBlock<false, true>(pass, block, run, run_stride, stride);
  } else {
    FoldBlock<false, false>(pass, block, run, run_stride, stride);
  }
}

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // per-target include guard
