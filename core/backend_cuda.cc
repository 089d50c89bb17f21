#include "core/backend_cuda.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>
#include <type_traits>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/cuda/accumulate.h"
#include "core/cuda/advance.h"
#include "core/cuda/card.h"
#include "core/cuda/pinned_pool.h"
#include "core/cuda/power.h"
#include "core/cuda/read.h"
#include "core/element_type.h"
#include "core/error.h"

namespace fisherd::core {
namespace {

using cuda::Card;

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kKeptPinned = 2048 * kMiB;
// Of a card: for the driver, the kernels, and lanes.
constexpr int64_t kSlack = 512 * kMiB;
// One step's rows may have this part of the card's memory; as much again is for the step beside it.
constexpr int64_t kStepParts = 16;
constexpr int64_t kLeastStep = 64 * kMiB;
// Of ready-made towers that are added at once.
constexpr int64_t kTermBytes = 64 * kMiB;

constexpr double kNotComputed = std::numeric_limits<double>::quiet_NaN();

cuda::WireType WireTypeOf(DataType type) {
  switch (type) {
    case DataType::kFloat64:
      return cuda::WireType::kFloat64;
    case DataType::kBfloat16:
      return cuda::WireType::kBFloat16;
    case DataType::kFloat16:
      return cuda::WireType::kFloat16;
    default:
      return cuda::WireType::kFloat32;
  }
}

// Kernels multiply by what the host divides by. Nothing infinite: times 0 that would be no number.
double ScaleOf(double divisor) { return std::min(1 / divisor, std::numeric_limits<double>::max()); }

std::string DeviceName(const Card& card) { return absl::StrCat("cuda:", card.index()); }

absl::Status CheckCard(const Card& card) {
  if (!card.lost()) return absl::OkStatus();
  return MakeError(
      absl::StatusCode::kUnavailable, reason::kDeviceLost,
      absl::StrCat(DeviceName(card), " (", card.name(), ") has failed: ", card.why_lost(),
                   "; what was on it comes back, as far as it was saved, when the "
                   "server is started again"),
      {{"device", DeviceName(card)}});
}

// What a method that needs `good` answers.
absl::Status Answer(const Card& card, bool good) {
  if (absl::Status status = CheckCard(card); !status.ok()) return status;
  return good ? absl::OkStatus()
              : absl::ResourceExhaustedError(absl::StrCat(DeviceName(card), " has no memory left"));
}

class PinnedMemory final : public HostMemory {
 public:
  void* Allocate(size_t bytes) override { return pool_.Allocate(bytes); }
  void Free(void* memory, size_t bytes) override { pool_.Free(memory, bytes); }
  int64_t bytes() const { return pool_.bytes(); }

 private:
  cuda::PinnedPool pool_{kKeptPinned};
};

class CudaElements final : public DeviceElements {
 public:
  CudaElements(Card& card, const MatrixShape& shape, void* data)
      : card_(card), shape_(shape), data_(data) {}
  ~CudaElements() override { card_.Free(data_); }

  absl::Status Download(int64_t first, std::span<std::byte> to) const override {
    return Answer(card_, card_.Download(bytes() + first, std::ssize(to), to.data()));
  }
  absl::Status Upload(int64_t first, std::span<const std::byte> from) override {
    return Answer(card_, card_.Upload(from.data(), std::ssize(from), bytes() + first));
  }
  absl::Status Fill(double value) override;
  absl::Status CopyFrom(const DeviceElements& other) override;
  absl::StatusOr<kernels::Summary> Summarize(double divisor) const override;
  absl::Status Power(const ElementsSpec& spec, int64_t first,
                     std::span<std::byte> to) const override {
    return Serve(spec, first, {}, to).status();
  }
  absl::StatusOr<int64_t> PowerMultiply(const ElementsSpec& spec, int64_t first,
                                        std::span<const std::byte> x,
                                        std::span<std::byte> to) const override {
    return Serve(spec, first, x, to);
  }
  absl::Status Materialize(const kernels::PowerSpec& power, DeviceElements& to) const override;

  template <typename T>
  T* elements() const {
    return static_cast<T*>(data_);
  }

 private:
  std::byte* bytes() const { return static_cast<std::byte*>(data_); }
  // Runs `work(type, lane)`, which says whether it is good, as kernels without copies before them.
  template <typename Work>
  absl::Status Run(const Work& work) const;
  // Powers, times x unless that is empty.
  absl::StatusOr<int64_t> Serve(const ElementsSpec& spec, int64_t first,
                                std::span<const std::byte> x, std::span<std::byte> to) const;
  // The same of what fits a chunk. Answers the first that is not finite, or a larger number.
  absl::StatusOr<uint64_t> ServeChunk(const ElementsSpec& spec, int64_t first,
                                      std::span<const std::byte> x, std::span<std::byte> to) const;

  Card& card_;
  const MatrixShape shape_;
  void* const data_;
};

template <typename Work>
absl::Status CudaElements::Run(const Work& work) const {
  Card::Hold lane = card_.ForRead();
  lane.Begin();
  lane.Copied();
  WithStateType(shape_.dtype, [&](auto type) { lane.Note(work(type, lane)); });
  return Answer(card_, lane.Finish());
}

absl::Status CudaElements::Fill(double value) {
  return Run([&]<typename T>(std::type_identity<T>, Card::Hold& lane) {
    return cuda::Fill<T>(value, shape_.size(), elements<T>(), lane->stream);
  });
}

absl::Status CudaElements::CopyFrom(const DeviceElements& other) {
  const auto& from = static_cast<const CudaElements&>(other);
  return Run([&](auto, Card::Hold& lane) {
    return cudaMemcpyPeerAsync(data_, card_.index(), from.data_, from.card_.index(),
                               static_cast<size_t>(shape_.bytes()), lane->stream);
  });
}

absl::Status CudaElements::Materialize(const kernels::PowerSpec& power, DeviceElements& to) const {
  return Run([&]<typename T>(std::type_identity<T>, Card::Hold& lane) {
    return cuda::Power<T>(elements<T>(), nullptr, shape_.size(), ScaleOf(power.divisor),
                          power.powered ? power.damping : 0, power.powered ? power.exponent : 1,
                          static_cast<CudaElements&>(to).elements<T>(), nullptr, lane->stream);
  });
}

absl::StatusOr<kernels::Summary> CudaElements::Summarize(double divisor) const {
  constexpr size_t kBytes = sizeof(cuda::PartialSummary) * cuda::kSummaryParts;
  static_assert(kBytes <= Card::kWordsBytes);
  std::array<cuda::PartialSummary, cuda::kSummaryParts> parts;
  absl::Status status;
  {
    Card::Hold lane = card_.ForRead();
    lane.Begin();
    lane.Copied();
    WithStateType(shape_.dtype, [&]<typename T>(std::type_identity<T>) {
      lane.Note(cuda::Summarize<T>(elements<T>(), shape_.size(), ScaleOf(divisor),
                                   reinterpret_cast<cuda::PartialSummary*>(lane->words),
                                   lane->stream));
    });
    lane.Note(
        cudaMemcpyAsync(lane->answer, lane->words, kBytes, cudaMemcpyDeviceToHost, lane->stream));
    status = Answer(card_, lane.Finish());
    std::copy_n(reinterpret_cast<const cuda::PartialSummary*>(lane->answer), parts.size(),
                parts.begin());
  }
  if (!status.ok()) return status;
  kernels::Summary all = {.least = parts[0].least, .most = parts[0].most, .sum = 0};
  for (const cuda::PartialSummary& part : parts) {
    all.least = std::min(all.least, part.least);
    all.most = std::max(all.most, part.most);
    all.sum += part.sum;
  }
  return all;
}

absl::StatusOr<int64_t> CudaElements::Serve(const ElementsSpec& spec, int64_t first,
                                            std::span<const std::byte> x,
                                            std::span<std::byte> to) const {
  const int64_t size = SizeOf(spec.dtype);
  const int64_t count = std::ssize(to) / size;
  constexpr int64_t kChunk = Card::kChunkBytes;
  for (int64_t done = 0; done < std::ssize(to); done += kChunk) {
    const auto bytes = static_cast<size_t>(std::min(std::ssize(to) - done, kChunk));
    const auto begin = static_cast<size_t>(done);
    const auto bad = ServeChunk(spec, first + done / size, x.empty() ? x : x.subspan(begin, bytes),
                                to.subspan(begin, bytes));
    if (!bad.ok()) return bad.status();
    if (*bad < bytes / static_cast<size_t>(size)) return done / size + static_cast<int64_t>(*bad);
  }
  return count;
}

absl::StatusOr<uint64_t> CudaElements::ServeChunk(const ElementsSpec& spec, int64_t first,
                                                  std::span<const std::byte> x,
                                                  std::span<std::byte> to) const {
  Card::Hold lane = card_.ForRead();
  std::byte* const device_x = lane->chunk;
  std::byte* const device_to = lane->chunk + Card::kChunkBytes;
  lane.Begin();
  if (!x.empty()) {
    std::copy(x.begin(), x.end(), lane->pinned);
    lane.Note(
        cudaMemcpyAsync(device_x, lane->pinned, x.size(), cudaMemcpyHostToDevice, lane->stream));
  }
  lane.Copied();
  lane.Note(cudaMemsetAsync(lane->words, 0xff, sizeof(uint64_t), lane->stream));
  WithStateType(shape_.dtype, [&]<typename T>(std::type_identity<T>) {
    lane.Note(cuda::Read<T>({.matrix = elements<T>(),
                             .cols = shape_.cols,
                             .offset = spec.place.offset,
                             .width = spec.place.width,
                             .first = first,
                             .count = std::ssize(to) / SizeOf(spec.dtype),
                             .scale = ScaleOf(spec.power.divisor),
                             .damping = spec.power.powered ? spec.power.damping : 0,
                             .exponent = spec.power.powered ? spec.power.exponent : 1,
                             .type = WireTypeOf(spec.dtype),
                             .x = x.empty() ? nullptr : device_x,
                             .to = device_to,
                             .first_bad = reinterpret_cast<uint64_t*>(lane->words)},
                            lane->stream));
  });
  std::byte* const pinned = lane->pinned + Card::kChunkBytes;
  lane.Note(cudaMemcpyAsync(pinned, device_to, to.size(), cudaMemcpyDeviceToHost, lane->stream));
  lane.Note(cudaMemcpyAsync(lane->answer, lane->words, sizeof(uint64_t), cudaMemcpyDeviceToHost,
                            lane->stream));
  if (auto s = Answer(card_, lane.Finish()); !s.ok()) return s;
  card_.CountBytes(std::ssize(x), std::ssize(to));
  std::copy_n(pinned, to.size(), to.begin());
  return *reinterpret_cast<const uint64_t*>(lane->answer);
}

// Towers that follow on each other with the same scale: their rows are one product.
struct Run {
  std::span<const SquaredRows> towers;
  int64_t rows = 0;
  bool splittable = true;
};

std::vector<Run> RunsOf(std::span<const SquaredRows> towers) {
  std::vector<Run> runs;
  for (size_t first = 0; first < towers.size();) {
    Run run;
    size_t last = first;
    for (; last < towers.size() && towers[last].scale == towers[first].scale; ++last) {
      run.rows += towers[last].rows;
      run.splittable &= towers[last].largest < cuda::kLargestSplit;
    }
    run.towers = towers.subspan(first, last - first);
    runs.push_back(run);
    first = last;
  }
  return runs;
}

// One side of one tower, to rows first_row … of `all`, which is packed like it.
template <typename T>
cudaError_t CopyRows(const T* from, int64_t rows, const kernels::PackedShape& all,
                     int64_t first_row, T* to, cudaStream_t stream) {
  const kernels::PackedShape own{rows, all.cols, all.panel_lines};
  if (rows == all.rows) {
    return cudaMemcpyAsync(to, from, static_cast<size_t>(kernels::PackedSize<T>(own)) * sizeof(T),
                           cudaMemcpyHostToDevice, stream);
  }
  const int64_t panel = all.panel_lines * kernels::kLine<T>;
  for (int64_t col = 0; col < all.cols; col += panel) {
    const int64_t width = kernels::PanelWidth<T>(all, col);
    T* const place = to + kernels::PanelOffset<T>(all, col) + first_row * width;
    const T* const source = from + kernels::PanelOffset<T>(own, col);
    const size_t bytes = static_cast<size_t>(rows * width) * sizeof(T);
    const int64_t whole = all.cols / panel;  // panels of full width
    const size_t pitch = static_cast<size_t>(all.rows * panel) * sizeof(T);
    if (col == 0 && whole > 1 && pitch <= std::numeric_limits<int32_t>::max()) {
      if (auto e = cudaMemcpy2DAsync(place, pitch, source, bytes, bytes, static_cast<size_t>(whole),
                                     cudaMemcpyHostToDevice, stream);
          e != cudaSuccess)
        return e;
      col += (whole - 1) * panel;
      continue;
    }
    if (auto e = cudaMemcpyAsync(place, source, bytes, cudaMemcpyHostToDevice, stream);
        e != cudaSuccess)
      return e;
  }
  return cudaSuccess;
}

// What a step does on a card, in one lane.
template <typename T>
class StepOnCard {
 public:
  StepOnCard(Card& card, const AdvanceStep& step, cuda::Precision precision,
             const MatrixShape& shape)
      : card_(card), step_(step), precision_(precision), shape_(shape), lane_(card.ForStep()) {}

  double Advance(const T* from, T* to);

 private:
  cuda::AdvanceRows<T> RowsOf(const Run& run) const;
  int64_t LeftBytes(const cuda::AdvanceRows<T>& rows) const {
    return kernels::PackedSize<T>(LeftShape(rows)) * int64_t{sizeof(T)};
  }
  int64_t RightBytes(const cuda::AdvanceRows<T>& rows) const {
    return kernels::PackedSize<T>(RightShape(rows)) * int64_t{sizeof(T)};
  }
  static kernels::PackedShape LeftShape(const cuda::AdvanceRows<T>& rows) {
    return {rows.rows, rows.left_cols, kernels::kLeftPanelLines};
  }
  static kernels::PackedShape RightShape(const cuda::AdvanceRows<T>& rows) {
    return {rows.rows, rows.right_cols, kernels::kRightPanelLines};
  }
  int64_t ScratchBytes(const cuda::AdvanceRows<T>& rows) const {
    return LeftBytes(rows) + RightBytes(rows) + cuda::AdvanceScratchBytes<T>(rows);
  }
  // Elements of the state that ready-made towers are added to at once, and the towers' bytes.
  int64_t TermPiece(size_t towers) const {
    return std::min<int64_t>(shape_.size(), kTermBytes / static_cast<int64_t>(towers * sizeof(T)));
  }
  int64_t TermBytes() const {
    const size_t towers = std::min<size_t>(step_.reduced.size(), cuda::kMostTerms);
    return towers == 0 ? 0 : TermPiece(towers) * static_cast<int64_t>(towers * sizeof(T));
  }
  bool AddAll(const std::vector<Run>& runs, const T* from, T* to);
  bool AddRows(const Run& run, double decay, const T* from, T* to);
  bool AddReduced(std::span<const ReducedTower> towers, double decay, const T* from, T* to);
  uint64_t* largest() const {
    return step_.find_largest ? reinterpret_cast<uint64_t*>(lane_->words) : nullptr;
  }

  Card& card_;
  const AdvanceStep& step_;
  const cuda::Precision precision_;
  const MatrixShape shape_;
  Card::Hold lane_;
};

template <typename T>
double StepOnCard<T>::Advance(const T* from, T* to) {
  const std::vector<Run> runs = RunsOf(step_.towers);
  int64_t scratch = std::max<int64_t>(TermBytes(), 1);
  for (const Run& run : runs) scratch = std::max(scratch, ScratchBytes(RowsOf(run)));
  if (lane_.Scratch(scratch) == nullptr) return kNotComputed;  // and nothing has been touched
  if (!AddAll(runs, from, to)) {
    card_.Lose("a step was cut short, and what it wrote is of no use");
    return kNotComputed;
  }
  if (!step_.find_largest) return 0;
  const uint64_t bits = *reinterpret_cast<const uint64_t*>(lane_->answer);
  double most;
  if constexpr (sizeof(T) == 4) {
    most = std::bit_cast<float>(static_cast<uint32_t>(bits >> 32));
  } else {
    most = std::bit_cast<double>(bits);
  }
  // Not a number is for steps that were not computed.
  return std::isnan(most) ? std::numeric_limits<double>::infinity() : most;
}

// The first that adds brings the average; the others add to what it has made.
template <typename T>
bool StepOnCard<T>::AddAll(const std::vector<Run>& runs, const T* from, T* to) {
  double decay = step_.decay;
  if (!card_.Good(cudaMemsetAsync(lane_->words, 0, sizeof(uint64_t), lane_->stream))) return false;
  for (const Run& run : runs) {
    if (!AddRows(run, std::exchange(decay, 1), std::exchange(from, to), to)) return false;
  }
  for (auto rest = step_.reduced; !rest.empty();) {
    const auto some = rest.first(std::min<size_t>(rest.size(), cuda::kMostTerms));
    if (!AddReduced(some, std::exchange(decay, 1), std::exchange(from, to), to)) return false;
    rest = rest.subspan(some.size());
  }
  return card_.Good(cudaMemcpyAsync(lane_->answer, lane_->words, sizeof(uint64_t),
                                    cudaMemcpyDeviceToHost, lane_->stream)) &&
         card_.Good(cudaStreamSynchronize(lane_->stream));
}

template <typename T>
cuda::AdvanceRows<T> StepOnCard<T>::RowsOf(const Run& run) const {
  return {.rows = run.rows,
          .left_cols = shape_.rows - step_.ones_column,
          .right_cols = shape_.cols,
          .ones_column = step_.ones_column,
          .weight = step_.weight * run.towers[0].scale,
          .precision = precision_,
          .splittable = run.splittable};
}

template <typename T>
bool StepOnCard<T>::AddRows(const Run& run, double decay, const T* from, T* to) {
  cuda::AdvanceRows<T> rows = RowsOf(run);
  rows.decay = decay;
  const int64_t left_bytes = LeftBytes(rows);
  const int64_t right_bytes = RightBytes(rows);
  auto* const scratch = static_cast<std::byte*>(lane_->scratch);
  T* const left = reinterpret_cast<T*>(scratch);
  T* const right = reinterpret_cast<T*>(scratch + left_bytes);
  lane_.Begin();
  int64_t first_row = 0;
  for (const SquaredRows& tower : run.towers) {
    lane_.Note(CopyRows(static_cast<const T*>(tower.left), tower.rows, LeftShape(rows), first_row,
                        left, lane_->stream));
    lane_.Note(CopyRows(static_cast<const T*>(tower.right), tower.rows, RightShape(rows), first_row,
                        right, lane_->stream));
    first_row += tower.rows;
  }
  lane_.Copied();
  card_.CountBytes(left_bytes + right_bytes, 0);
  rows.left = left;
  rows.right = right;
  lane_.Note(cuda::Advance<T>(rows, scratch + left_bytes + right_bytes, from, to, largest(),
                              lane_->stream));
  return lane_.Finish();
}

// Piece by piece of the state: every element is added up by itself.
template <typename T>
bool StepOnCard<T>::AddReduced(std::span<const ReducedTower> towers, double decay, const T* from,
                               T* to) {
  const int64_t piece = TermPiece(towers.size());
  auto* const scratch = static_cast<T*>(lane_->scratch);
  for (int64_t first = 0; first < shape_.size(); first += piece) {
    const int64_t count = std::min(shape_.size() - first, piece);
    cuda::Terms<T> terms{.count = static_cast<int>(towers.size())};
    lane_.Begin();
    for (size_t k = 0; k < towers.size(); ++k) {
      T* const term = scratch + static_cast<int64_t>(k) * piece;
      lane_.Note(cudaMemcpyAsync(term, static_cast<const T*>(towers[k].elements) + first,
                                 static_cast<size_t>(count) * sizeof(T), cudaMemcpyHostToDevice,
                                 lane_->stream));
      terms.elements[k] = term;
      terms.weight[k] = step_.weight * towers[k].scale;
    }
    lane_.Copied();
    card_.CountBytes(count * static_cast<int64_t>(towers.size() * sizeof(T)), 0);
    lane_.Note(cuda::Accumulate<T>(decay, terms, count, from + first, to + first, largest(),
                                   lane_->stream));
    if (!lane_.Finish()) return false;
  }
  return true;
}

class BackendCuda final : public DeviceBackend {
 public:
  BackendCuda(std::unique_ptr<Card> card, const DeviceOptions& options)
      : card_(std::move(card)),
        precision_(options.tf32 ? cuda::Precision::kTf32 : cuda::Precision::kFloat32),
        name_(absl::StrCat(DeviceName(*card_), " (", card_->name(), options.tf32 ? ", tf32" : "",
                           ")")) {
    const int64_t most = card_->memory().free - kSlack;
    const int64_t memory = options.memory > 0 ? std::min(options.memory, most) : most;
    step_limit_ = std::max(memory / kStepParts, kLeastStep);
    state_budget_ = std::max<int64_t>(memory - 2 * step_limit_, 0);
  }

  std::string name() const override { return name_; }
  std::string device() const override { return DeviceName(*card_); }
  std::unique_ptr<Matrix> NewMatrix(const MatrixShape& shape) override {
    void* const data = card_->Allocate(shape.bytes());
    if (data == nullptr) return nullptr;
    return std::make_unique<Matrix>(shape, std::make_unique<CudaElements>(*card_, shape, data));
  }
  HostMemory* batch_memory() override { return &batch_memory_; }
  int64_t step_limit() const override { return step_limit_; }
  int64_t state_budget() const override { return state_budget_; }
  absl::Status Check() const override { return CheckCard(*card_); }

  double Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) override {
    return WithStateType(to.shape().dtype, [&]<typename T>(std::type_identity<T>) {
      const auto& source = static_cast<const CudaElements&>(*from.device());
      const auto& target = static_cast<const CudaElements&>(*to.device());
      return StepOnCard<T>(*card_, step, precision_, to.shape())
          .Advance(source.elements<T>(), target.elements<T>());
    });
  }

  Stats stats() const override {
    const Card::Memory memory = card_->memory();
    const Card::Counts counts = card_->counts();
    return {.memory_bytes = memory.bytes,
            .free_bytes = memory.free,
            .kernel_seconds = counts.kernel_seconds,
            .copy_seconds = counts.copy_seconds,
            .bytes_to_device = counts.bytes_to_card,
            .bytes_from_device = counts.bytes_from_card,
            .pinned_bytes = batch_memory_.bytes()};
  }

 private:
  const std::unique_ptr<Card> card_;
  const cuda::Precision precision_;
  const std::string name_;
  PinnedMemory batch_memory_;
  int64_t step_limit_ = 0;
  int64_t state_budget_ = 0;
};

}  // namespace

Devices FindCudaDevices(const DeviceOptions& options) {
  Devices devices;
  int count = 0;
  if (const cudaError_t error = cudaGetDeviceCount(&count); error != cudaSuccess) {
    cudaGetLastError();
    devices.why_none = cudaGetErrorString(error);
    return devices;
  }
  devices.why_none = "there is no GPU";
  for (int index = 0; index < count; ++index) {
    std::string why_not;
    if (std::unique_ptr<Card> card = Card::Open(index, why_not)) {
      devices.found.push_back(std::make_unique<BackendCuda>(std::move(card), options));
    } else {
      devices.why_none = absl::StrCat("cuda:", index, " cannot be used: ", why_not);
    }
  }
  return devices;
}

}  // namespace fisherd::core
