#include "core/kernels/ingest.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "core/kernels/target.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/ingest.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

// What may come in, and the states that it may go into.
#define FISHERD_WIRE_TYPES(M, T) M(float, T) M(double, T) M(Bfloat16, T) M(Float16, T)
#define FISHERD_INGEST_TYPES(M) FISHERD_WIRE_TYPES(M, float) FISHERD_WIRE_TYPES(M, double)

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

// The lanes' type on the wire, as Highway knows it.
template <typename Wire>
struct LaneOf {
  using Type = Wire;
};
template <>
struct LaneOf<Bfloat16> {
  using Type = hwy::bfloat16_t;
};
template <>
struct LaneOf<Float16> {
  using Type = hwy::float16_t;
};

// Unaligned elements in their own type.
template <class D>
HWY_INLINE hn::Vec<D> LoadBytes(D d, const std::byte* from) {
#if HWY_TARGET == HWY_SCALAR  // would load through a misaligned pointer
  hn::TFromD<D> lane;
  std::memcpy(&lane, from, sizeof(lane));
  return hn::LoadU(d, &lane);
#else
  return hn::LoadU(d, reinterpret_cast<const hn::TFromD<D>*>(from));
#endif
}

// Takes wire elements to lanes of T times the scale, rounded once. kWide goes by way of 64 bits,
// for a scale or an element that float does not hold; where the scale fits, a product in float is
// the same.
template <typename Wire, typename T, bool kWide>
struct Loader {
  static constexpr bool kByDouble = kWide || std::is_same_v<T, double>;
  using Lane = typename LaneOf<Wire>::Type;
  using Work = std::conditional_t<kByDouble, double, float>;
  using Wide = hn::CappedTag<Work, kLine<Work>>;
  using D = hn::Rebind<T, Wide>;

  explicit Loader(double scale) : scale(static_cast<Work>(scale)) {}

  HWY_INLINE hn::Vec<D> operator()(D d, const std::byte* from) const {
    const Wide wide;
    const auto scaled = hn::Mul(hn::Set(wide, scale), Load(wide, from));
    if constexpr (std::is_same_v<Work, T>) {
      return scaled;
    } else {
      return hn::DemoteTo(d, scaled);
    }
  }

  HWY_INLINE hn::Vec<Wide> Load(Wide wide, const std::byte* from) const {
    const auto lanes = LoadBytes(hn::Rebind<Lane, Wide>(), from);
    if constexpr (std::is_same_v<Lane, Work>) {
      return lanes;
    } else if constexpr (std::is_same_v<Work, float> || std::is_same_v<Lane, float>) {
      return hn::PromoteTo(wide, lanes);
    } else {
      return hn::PromoteTo(wide, hn::PromoteTo(hn::Rebind<float, Wide>(), lanes));
    }
  }

  const Work scale;
};

// Rows that go through the panels together, where one row's elements are far apart. Shorter rows
// share pages, and the processor fetches ahead only where a page is read in order; which is for
// what the caches have no room for.
constexpr int64_t kRowsAtOnce = 8;
constexpr int64_t kShortRowBytes = 2 << 10;
constexpr int64_t kSmallBytes = 512 << 10;

// Squares runs of elements, and keeps the largest square.
template <typename Wire, typename T, bool kWide, bool kAccumulate>
class Squarer {
  using L = Loader<Wire, T, kWide>;
  using D = typename L::D;
  using Bits = hn::RebindToUnsigned<D>;
  using V = hn::Vec<D>;

 public:
  explicit Squarer(double scale) : loader_(scale) {}

  // Takes the elements of a run, as far as they are columns of one panel.
  HWY_INLINE void Part(const std::byte* from, int64_t count, T* to, hn::Vec<Bits>& largest) const {
    const D d;
    const int64_t lanes = hn::Lanes(d);
    int64_t k = 0;
    for (; k + lanes <= count; k += lanes) {
      const V squares = Square(d, from + k * sizeof(Wire), to + k);
      hn::StoreU(squares, d, to + k);
      largest = Max(largest, squares);
    }
    if (k < count) Rest(from + k * sizeof(Wire), count - k, to + k, largest);
  }

  // The whole panels of `rows` rows.
  template <int kLines>
  HWY_INLINE void Panels(const std::byte* from, int64_t rows, const PackedShape& shape, T* to,
                         hn::Vec<Bits>& largest) const {
    constexpr int64_t kWidth = kLines * kLine<T>;
    const D d;
    const int64_t lanes = hn::Lanes(d);
    for (int64_t col = 0; col + kWidth <= shape.cols; col += kWidth, to += shape.rows * kWidth) {
      for (int64_t row = 0; row < rows; ++row) {
        const std::byte* x = from + (row * shape.cols + col) * sizeof(Wire);
        T* const panel = to + row * kWidth;
        for (int64_t k = 0; k < kWidth; k += lanes, x += lanes * sizeof(Wire)) {
          const V squares = Square(d, x, panel + k);
          hn::Store(squares, d, panel + k);
          largest = Max(largest, squares);
        }
      }
    }
  }

  // `rows` whole rows. What the tails of rows read beyond them, before `end`, does not count; it
  // leaves zeros in the padding, or what is there.
  template <int kLines>
  HWY_INLINE void Rows(const std::byte* from, const std::byte* end, int64_t first, int64_t rows,
                       const PackedShape& shape, T* packed, hn::Vec<Bits>& largest) const {
    constexpr int64_t kWidth = kLines * kLine<T>;
    const D d;
    const int64_t lanes = hn::Lanes(d);
    const int64_t panels_end = shape.cols / kWidth * kWidth;
    const int64_t tail_end = shape.cols / lanes * lanes;
    const int64_t tail_width = PanelWidth<T>(shape, panels_end);
    const auto mask = hn::FirstN(d, shape.cols - tail_end);
    T* to = packed + first * kWidth;
    T* tail = packed + PanelOffset<T>(shape, panels_end) + first * tail_width;
    int64_t row = 0;
    if (tail_end == 0) {  // less than a vector a row: no loops but this one
      const std::byte* const last = end - lanes * sizeof(Wire);
      for (; row < rows && from <= last; ++row, from += shape.cols * sizeof(Wire)) {
        const V squares = SquareOf(hn::IfThenElseZero(mask, loader_(d, from)), tail);
        hn::Store(squares, d, tail);
        largest = Max(largest, hn::IfThenElseZero(mask, squares));
        tail += tail_width;
      }
    }
    const int64_t row_bytes = shape.cols * sizeof(Wire);
    const bool in_order = row_bytes <= kShortRowBytes && row_bytes * shape.rows > kSmallBytes;
    const int64_t at_once = in_order ? 1 : kRowsAtOnce;
    while (row < rows) {
      const int64_t last = row + std::min(at_once, rows - row);
      Panels<kLines>(from, last - row, shape, to, largest);
      for (; row < last; ++row, to += kWidth, tail += tail_width) {
        from += panels_end * sizeof(Wire);
        int64_t col = panels_end;
        for (; col < tail_end; col += lanes, from += lanes * sizeof(Wire)) {
          const V squares = Square(d, from, tail + (col - panels_end));
          hn::Store(squares, d, tail + (col - panels_end));
          largest = Max(largest, squares);
        }
        if (col == shape.cols) continue;
        T* const rest = tail + (col - panels_end);
        if (end - from >= static_cast<int64_t>(lanes * sizeof(Wire))) {
          const V x = hn::IfThenElseZero(mask, loader_(d, from));
          const V squares = SquareOf(x, rest);
          hn::Store(squares, d, rest);
          largest = Max(largest, hn::IfThenElseZero(mask, squares));
        } else {
          Rest(from, shape.cols - col, rest, largest);
        }
        from += (shape.cols - col) * sizeof(Wire);
      }
    }
  }

  static T Largest(hn::Vec<Bits> largest) {
    using Lane = hn::TFromD<Bits>;
    HWY_ALIGN Lane lanes[kLine<T>];
    hn::Store(largest, Bits(), lanes);
    const Lane most = *std::max_element(lanes, lanes + hn::Lanes(Bits()));
    return std::bit_cast<T>(most);
  }

 private:
  HWY_INLINE V Square(D d, const std::byte* from, const T* to) const {
    return SquareOf(loader_(d, from), to);
  }

  static HWY_INLINE V SquareOf(V x, const T* to) {
    if constexpr (kAccumulate) {
      return hn::MulAdd(x, x, hn::LoadU(D(), to));
    } else {
      return hn::Mul(x, x);
    }
  }

  // The bits of floats from 0 up are in the order of their values, with infinity and NaN at the
  // end: one comparison finds the largest and the bad. A square has no sign, except NaN's.
  static HWY_INLINE hn::Vec<Bits> Max(hn::Vec<Bits> largest, V squares) {
    return hn::Max(largest, hn::BitCast(Bits(), squares));
  }

  // Fewer elements than a vector has: by way of one that is filled up with zeros.
  HWY_NOINLINE void Rest(const std::byte* from, int64_t count, T* to,
                         hn::Vec<Bits>& largest) const {
    const D d;
    HWY_ALIGN std::byte elements[kLine<T> * sizeof(double)] = {};
    HWY_ALIGN T there[kLine<T>] = {};
    std::memcpy(elements, from, count * sizeof(Wire));
    if constexpr (kAccumulate) std::copy_n(to, count, there);
    const V squares = Square(d, elements, there);
    hn::Store(squares, d, there);
    std::copy_n(there, count, to);
    largest = Max(largest, squares);
  }

  const L loader_;
};

template <int kLines, typename Wire, typename T, bool kWide, bool kAccumulate>
T IngestPanels(const IngestRun& run, const PackedShape& shape, T* packed) {
  using S = Squarer<Wire, T, kWide, kAccumulate>;
  constexpr int64_t kWidth = kLines * kLine<T>;
  const S squarer(run.scale);
  const std::byte* from = run.from;
  const std::byte* const end = from + run.count * sizeof(Wire);
  int64_t row = run.first / shape.cols;
  int64_t col = run.first % shape.cols;
  auto largest = hn::Zero(typename hn::RebindToUnsigned<typename Loader<Wire, T, kWide>::D>());
  for (int64_t left = run.count; left > 0;) {
    int64_t count = left / shape.cols * shape.cols;
    if (col == 0 && count > 0) {
      squarer.template Rows<kLines>(from, end, row, count / shape.cols, shape, packed, largest);
      row += count / shape.cols;
    } else {  // of the first row, or of the last
      count = std::min({left, shape.cols - col, kWidth - col % kWidth});
      squarer.Part(from, count, packed + PackedIndex<T>(shape, row, col), largest);
      col += count;
      if (col == shape.cols) {
        col = 0;
        ++row;
      }
    }
    from += count * sizeof(Wire);
    left -= count;
  }
  return S::Largest(largest);
}

template <typename Wire, typename T, bool kWide, bool kAccumulate>
T IngestAs(const IngestRun& run, const PackedShape& shape, T* packed) {
  return shape.panel_lines == kLeftPanelLines
             ? IngestPanels<kLeftPanelLines, Wire, T, kWide, kAccumulate>(run, shape, packed)
             : IngestPanels<kRightPanelLines, Wire, T, kWide, kAccumulate>(run, shape, packed);
}

template <typename Wire, typename T>
T IngestTo(const IngestRun& run, const PackedShape& shape, T* packed) {
  // Float holds the scale, and every element of the wire.
  const bool narrow = !std::is_same_v<Wire, double> && static_cast<float>(run.scale) == run.scale;
  if constexpr (std::is_same_v<T, float> && !std::is_same_v<Wire, double>) {
    if (narrow) {
      return run.accumulate ? IngestAs<Wire, T, false, true>(run, shape, packed)
                            : IngestAs<Wire, T, false, false>(run, shape, packed);
    }
  }
  return run.accumulate ? IngestAs<Wire, T, true, true>(run, shape, packed)
                        : IngestAs<Wire, T, true, false>(run, shape, packed);
}

#define FISHERD_INGEST(Wire, T)                                                  \
  T Ingest##Wire##T(const IngestRun& run, const PackedShape& shape, T* packed) { \
    return IngestTo<Wire, T>(run, shape, packed);                                \
  }
FISHERD_INGEST_TYPES(FISHERD_INGEST)
#undef FISHERD_INGEST

int64_t ThisTarget() { return HWY_TARGET; }

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fisherd::kernels {
namespace {

#define FISHERD_INGEST(Wire, T)                                                     \
  HWY_EXPORT(Ingest##Wire##T);                                                      \
  T Dispatch(std::type_identity<Wire>, std::type_identity<T>, const IngestRun& run, \
             const PackedShape& shape, T* packed) {                                 \
    return HWY_DYNAMIC_DISPATCH(Ingest##Wire##T)(run, shape, packed);               \
  }
FISHERD_INGEST_TYPES(FISHERD_INGEST)
#undef FISHERD_INGEST

HWY_EXPORT(ThisTarget);

}  // namespace

template <typename Wire, typename T>
T Ingest(const IngestRun& run, const PackedShape& shape, T* packed) {
  return Dispatch(std::type_identity<Wire>(), std::type_identity<T>(), run, shape, packed);
}
#define FISHERD_INGEST(Wire, T) \
  template T Ingest<Wire, T>(const IngestRun&, const PackedShape&, T*);
FISHERD_INGEST_TYPES(FISHERD_INGEST)
#undef FISHERD_INGEST

std::string IngestTarget() { return TargetName(HWY_DYNAMIC_DISPATCH(ThisTarget)()); }

}  // namespace fisherd::kernels
#endif  // HWY_ONCE
