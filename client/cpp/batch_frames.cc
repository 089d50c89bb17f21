#include "client/cpp/batch_frames.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/crc32c.h"
#include "client/cpp/errors.h"

namespace fisherd {
namespace {

static_assert(std::endian::native == std::endian::little, "elements travel little-endian");

constexpr int64_t kFrameOverhead = 64;  // fields of rows and end beside the data, and their tags

class Hasher {
 public:
  Hasher() : state_(XXH3_createState()) { XXH3_128bits_reset(state_.get()); }

  void Bytes(const void* data, size_t size) { XXH3_128bits_update(state_.get(), data, size); }
  void Number(uint64_t value) { Bytes(&value, sizeof value); }
  void Optional(bool present, double value) {
    Number(present ? 1 : 0);
    if (present) Number(std::bit_cast<uint64_t>(value));
  }
  std::string Digest() const {
    XXH128_canonical_t digest;
    XXH128_canonicalFromHash(&digest, XXH3_128bits_digest(state_.get()));
    return std::string(reinterpret_cast<const char*>(digest.digest), sizeof digest.digest);
  }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  std::unique_ptr<XXH3_state_t, Free> state_;
};

// Calls `consume` with the bytes of rows [first, first + count), in as few pieces as they have.
template <typename Consume>
void ForBytes(const MatrixView& matrix, int64_t first, int64_t count, Consume consume) {
  if (matrix.contiguous()) {
    consume(matrix.rows(first, count));
  } else {
    for (int64_t row = first; row < first + count; ++row) consume(matrix.row(row));
  }
}

void AddTensor(const MatrixView& matrix, v1::TensorRole role, int source, BatchTensors& batch) {
  if (!matrix.present()) return;
  batch.tensors.push_back(matrix);
  v1::TensorSpec& spec = batch.specs.emplace_back();
  spec.set_role(role);
  spec.set_source(source);
  spec.set_dtype(matrix.dtype());
  spec.add_shape(matrix.rows());
  if (role != v1::TENSOR_ROLE_ROW_WEIGHTS) spec.add_shape(matrix.cols());
}

absl::Status BadBatch(const BatchIdentity& identity, std::string_view field,
                      const std::string& message) {
  return BatchError(absl::StatusCode::kInvalidArgument, "BAD_ARGUMENT", identity, message,
                    {{"field", std::string(field)}});
}

std::string NameOf(const v1::TensorSpec& spec) {
  switch (spec.role()) {
    case v1::TENSOR_ROLE_INPUTS:
      return "inputs";
    case v1::TENSOR_ROLE_OUTPUTS_GRADS:
      return absl::StrCat("outputs_grads[", spec.source(), "]");
    default:
      return "row_weights";
  }
}

absl::Status CheckRows(const BatchIdentity& identity, const BatchTensors& tensors,
                       const Batch& batch) {
  if (tensors.specs.empty()) return BadBatch(identity, "inputs", "the batch has no tensors");
  const int64_t rows = tensors.frame_rows();
  for (const v1::TensorSpec& spec : tensors.specs) {
    if (spec.shape(0) != rows || rows < 1) {
      return BadBatch(
          identity, NameOf(spec),
          absl::StrCat(NameOf(spec), " has ", spec.shape(0), " rows; every tensor of a ",
                       "batch has the same number of them, at least 1 (", NameOf(tensors.specs[0]),
                       ": ", rows, ")"));
    }
  }
  if (batch.row_weights.present() && batch.row_weights.cols() != 1) {
    return BadBatch(identity, "row_weights",
                    absl::StrCat("row_weights has ", batch.row_weights.cols(),
                                 " columns, expected a column vector of one weight per row"));
  }
  return absl::OkStatus();
}

v1::BatchHeader MakeHeader(const BatchIdentity& identity, const BatchTensors& batch,
                           const StepOptions& options) {
  v1::BatchHeader header;
  header.set_factor(identity.factor);
  header.set_incarnation(identity.incarnation);
  header.set_step(identity.step);
  header.set_tower(identity.tower);
  header.set_rows(batch.rows);
  header.set_form(batch.form);
  header.set_decay(options.decay);
  if (options.weight) header.set_weight(*options.weight);
  const bool scaled_already = batch.form == v1::BATCH_FORM_CONTRIBUTION;
  if (options.gradient_scale && !scaled_already) header.set_gradient_scale(*options.gradient_scale);
  if (batch.examples) header.set_examples(*batch.examples);
  header.set_label(options.label);
  header.mutable_tensors()->Add(batch.specs.begin(), batch.specs.end());
  header.set_digest(BatchDigest(header, batch.tensors));
  return header;
}

// The elements of `rows`, to the message or to its place in the block.
void CopyRows(const BatchTensors& batch, EncodedBatch& encoded, v1::BatchRows& rows) {
  const int64_t first = rows.first_row();
  const int64_t count = rows.row_count();
  const auto copy = [&](const auto& take) {
    for (const MatrixView& matrix : batch.tensors) ForBytes(matrix, first, count, take);
  };
  const int64_t bytes = count * batch.row_bytes();
  if (encoded.block != nullptr) {
    const int64_t offset = first * batch.row_bytes();
    rows.mutable_shared()->set_offset(encoded.block->offset() + offset);
    rows.mutable_shared()->set_size(bytes);
    std::byte* to = encoded.block->data() + offset;
    copy([&](std::span<const std::byte> piece) {
      std::memcpy(to, piece.data(), piece.size());
      to += piece.size();
    });
  } else {
    std::string& data = *rows.mutable_data();
    data = encoded.pool->Take(bytes);
    copy([&](std::span<const std::byte> piece) {
      data.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    });
    rows.set_crc32c(Crc32c(data));
  }
}

}  // namespace

absl::Status BatchError(absl::StatusCode code, std::string_view reason,
                        const BatchIdentity& identity, const std::string& message,
                        std::map<std::string, std::string> metadata) {
  std::string whole = absl::StrCat("factor \"", identity.factor, "\", tower ", identity.tower);
  metadata["factor"] = identity.factor;
  metadata["tower"] = absl::StrCat(identity.tower);
  if (identity.step > 0) {
    absl::StrAppend(&whole, ", step ", identity.step);
    metadata["step"] = absl::StrCat(identity.step);
  }
  return MakeError(code, {reason.data(), reason.size()}, absl::StrCat(whole, ": ", message),
                   metadata);
}

std::string BatchDigest(const v1::BatchHeader& header, const std::vector<MatrixView>& tensors) {
  Hasher hasher;
  hasher.Number(header.factor().size());
  hasher.Bytes(header.factor().data(), header.factor().size());
  hasher.Number(header.incarnation());
  hasher.Number(header.step());
  hasher.Number(header.tower());
  hasher.Number(header.rows());
  hasher.Number(header.form());
  hasher.Number(header.label());
  hasher.Optional(header.has_decay(), header.decay());
  hasher.Optional(header.has_weight(), header.weight());
  hasher.Optional(header.has_gradient_scale(), header.gradient_scale());
  if (header.form() == v1::BATCH_FORM_CONTRIBUTION) {
    hasher.Optional(header.has_examples(), header.examples());
  }
  hasher.Number(header.tensors_size());
  for (const v1::TensorSpec& spec : header.tensors()) {
    hasher.Number(spec.role());
    hasher.Number(spec.source());
    hasher.Number(spec.dtype());
    hasher.Number(spec.shape_size());
    for (int64_t size : spec.shape()) hasher.Number(size);
  }
  for (const MatrixView& matrix : tensors) {
    ForBytes(matrix, 0, matrix.rows(),
             [&](std::span<const std::byte> bytes) { hasher.Bytes(bytes.data(), bytes.size()); });
  }
  return hasher.Digest();
}

v1::UpdateRequest EncodedBatch::Addressed(const v1::UpdateRequest& message,
                                          std::string_view region) const {
  v1::UpdateRequest addressed = message;
  if (!message.has_rows()) return addressed;
  v1::BatchRows& rows = *addressed.mutable_rows();
  if (!region.empty()) {
    rows.mutable_shared()->set_region(region.data(), region.size());
    return addressed;
  }
  const std::byte* const elements = block->data() + (rows.shared().offset() - block->offset());
  rows.set_data(elements, static_cast<size_t>(rows.shared().size()));
  rows.set_crc32c(Crc32c(rows.data()));
  rows.clear_shared();
  return addressed;
}

const v1::UpdateRequest& EncodedBatch::Filled(size_t index) const {
  MutexLock lock(&mutex);
  while (filled <= index) changed.WaitUntil(&mutex, absl::InfiniteFuture());
  return messages[index];
}

EncodedBatch::~EncodedBatch() {
  if (pool == nullptr || block != nullptr) return;
  for (v1::UpdateRequest& message : messages) {
    if (message.has_rows()) pool->Return(std::move(*message.mutable_rows()->mutable_data()));
  }
}

int64_t BatchTensors::row_bytes() const {
  int64_t bytes = 0;
  for (const MatrixView& matrix : tensors) bytes += matrix.row_bytes();
  return bytes;
}

absl::StatusOr<BatchTensors> RawTensors(const BatchIdentity& identity, const Batch& batch) {
  BatchTensors raw;
  AddTensor(batch.inputs, v1::TENSOR_ROLE_INPUTS, 0, raw);
  for (size_t source = 0; source < batch.outputs_grads.size(); ++source) {
    AddTensor(batch.outputs_grads[source], v1::TENSOR_ROLE_OUTPUTS_GRADS, source, raw);
  }
  AddTensor(batch.row_weights, v1::TENSOR_ROLE_ROW_WEIGHTS, 0, raw);
  if (absl::Status status = CheckRows(identity, raw, batch); !status.ok()) return status;
  raw.rows = raw.frame_rows();
  return raw;
}

BatchTensors ContributionTensors(const MatrixView& contribution, int64_t rows,
                                 std::optional<double> examples) {
  BatchTensors tensors = {.form = v1::BATCH_FORM_CONTRIBUTION, .rows = rows, .examples = examples};
  AddTensor(contribution, v1::TENSOR_ROLE_CONTRIBUTION, 0, tensors);
  return tensors;
}

absl::StatusOr<std::shared_ptr<EncodedBatch>> BeginBatch(
    const BatchIdentity& identity, const BatchTensors& batch, const StepOptions& options,
    int64_t max_frame, std::shared_ptr<BufferPool> pool, SharedMemory* shared) {
  v1::BatchHeader header = MakeHeader(identity, batch, options);
  const int64_t row_bytes = batch.row_bytes();
  const int64_t header_bytes = header.ByteSizeLong();
  if (std::max(header_bytes, row_bytes) + kFrameOverhead > kMaxMessage) {
    return BadBatch(identity, "outputs_grads",
                    absl::StrCat("one row of all tensors is ", row_bytes, " bytes and their ",
                                 "description ", header_bytes, "; each must fit a message, which ",
                                 "is at most ", kMaxMessage, " bytes"));
  }
  const int64_t all = batch.frame_rows();
  const int64_t rows_per_frame =
      std::clamp<int64_t>(max_frame / std::max<int64_t>(row_bytes, 1), 1, all);
  const auto encoded = std::make_shared<EncodedBatch>(std::move(pool));
  encoded->bytes = batch.bytes();
  encoded->form = batch.form;
  if (shared != nullptr && encoded->bytes >= kLeastSharedBytes) {
    encoded->block = shared->Take(encoded->bytes, {.tower = {identity.factor, identity.tower},
                                                   .incarnation = identity.incarnation,
                                                   .step = identity.step});
  }
  *encoded->messages.emplace_back().mutable_header() = std::move(header);
  if (header_bytes + rows_per_frame * row_bytes + kFrameOverhead > kMaxMessage) {
    encoded->messages.emplace_back();  // the header goes alone
  }
  for (int64_t first = 0; first < all; first += rows_per_frame) {
    if (first > 0) encoded->messages.emplace_back();
    v1::BatchRows& rows = *encoded->messages.back().mutable_rows();
    rows.set_first_row(first);
    rows.set_row_count(std::min(rows_per_frame, all - first));
  }
  encoded->messages.back().mutable_end()->set_rows(all);
  return encoded;
}

void FillBatch(const BatchTensors& batch, EncodedBatch& encoded) {
  for (v1::UpdateRequest& message : encoded.messages) {
    if (message.has_rows()) CopyRows(batch, encoded, *message.mutable_rows());
    MutexLock lock(&encoded.mutex);
    ++encoded.filled;
    encoded.changed.NotifyAll();
  }
}

absl::StatusOr<std::shared_ptr<const EncodedBatch>> EncodeBatch(
    const BatchIdentity& identity, const BatchTensors& batch, const StepOptions& options,
    int64_t max_frame, std::shared_ptr<BufferPool> pool, SharedMemory* shared) {
  auto encoded = BeginBatch(identity, batch, options, max_frame, std::move(pool), shared);
  if (!encoded.ok()) return encoded.status();
  FillBatch(batch, **encoded);
  return *std::move(encoded);
}

}  // namespace fisherd
