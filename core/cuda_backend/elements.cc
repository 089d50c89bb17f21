#include "core/cuda_backend/elements.h"

#include <algorithm>
#include <array>
#include <limits>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "core/cuda/power.h"
#include "core/cuda/read.h"
#include "core/element_type.h"
#include "core/error.h"

namespace fisherd::core {
namespace {

using cuda::Card;

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

// What a method that needs `good` answers.
absl::Status Answer(const Card& card, bool good) {
  if (absl::Status status = CheckCard(card); !status.ok()) return status;
  return good ? absl::OkStatus()
              : absl::ResourceExhaustedError(absl::StrCat(DeviceName(card), " has no memory left"));
}

}  // namespace

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

absl::Status CudaElements::Download(int64_t first, std::span<std::byte> to) const {
  return Answer(card_, card_.Download(bytes() + first, std::ssize(to), to.data()));
}

absl::Status CudaElements::Upload(int64_t first, std::span<const std::byte> from) {
  return Answer(card_, card_.Upload(from.data(), std::ssize(from), bytes() + first));
}

absl::Status CudaElements::Power(const ElementsSpec& spec, int64_t first,
                                 std::span<std::byte> to) const {
  return Serve(spec, first, {}, to).status();
}

absl::StatusOr<int64_t> CudaElements::PowerMultiply(const ElementsSpec& spec, int64_t first,
                                                    std::span<const std::byte> x,
                                                    std::span<std::byte> to) const {
  return Serve(spec, first, x, to);
}

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

}  // namespace fisherd::core
