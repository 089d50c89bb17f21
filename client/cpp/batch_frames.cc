#include "client/cpp/batch_frames.h"

#include <xxhash.h>

#include <algorithm>
#include <bit>
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

void AddTensor(const MatrixView& matrix, v1::TensorRole role, int source,
               std::vector<MatrixView>& tensors, v1::BatchHeader& header) {
  if (!matrix.present()) return;
  tensors.push_back(matrix);
  v1::TensorSpec& spec = *header.add_tensors();
  spec.set_role(role);
  spec.set_source(source);
  spec.set_dtype(matrix.dtype());
  spec.add_shape(matrix.rows());
  if (role != v1::TENSOR_ROLE_ROW_WEIGHTS) spec.add_shape(matrix.cols());
}

absl::Status BadBatch(const BatchIdentity& identity, std::string_view field,
                      const std::string& message) {
  return MakeError(
      absl::StatusCode::kInvalidArgument, "BAD_ARGUMENT",
      absl::StrCat("factor \"", identity.factor, "\", tower ", identity.tower, ": ", message),
      {{"factor", identity.factor},
       {"tower", absl::StrCat(identity.tower)},
       {"field", std::string(field)}});
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

absl::Status CheckRows(const BatchIdentity& identity, const v1::BatchHeader& header,
                       const Batch& batch) {
  if (header.tensors().empty()) {
    return BadBatch(identity, "inputs", "the batch has no tensors");
  }
  for (const v1::TensorSpec& spec : header.tensors()) {
    if (spec.shape(0) != header.rows() || spec.shape(0) < 1) {
      return BadBatch(
          identity, NameOf(spec),
          absl::StrCat(NameOf(spec), " has ", spec.shape(0), " rows; every tensor of a ",
                       "batch has the same number of them, at least 1 (", NameOf(header.tensors(0)),
                       ": ", header.rows(), ")"));
    }
  }
  if (batch.row_weights.present() && batch.row_weights.cols() != 1) {
    return BadBatch(identity, "row_weights",
                    absl::StrCat("row_weights has ", batch.row_weights.cols(),
                                 " columns, expected a column vector of one weight per row"));
  }
  return absl::OkStatus();
}

}  // namespace

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

absl::StatusOr<BatchFrames> BatchFrames::Make(const BatchIdentity& identity, const Batch& batch,
                                              const StepOptions& options, int64_t max_frame) {
  BatchFrames frames;
  v1::BatchHeader& header = frames.header_;
  AddTensor(batch.inputs, v1::TENSOR_ROLE_INPUTS, 0, frames.tensors_, header);
  for (size_t source = 0; source < batch.outputs_grads.size(); ++source) {
    AddTensor(batch.outputs_grads[source], v1::TENSOR_ROLE_OUTPUTS_GRADS, source, frames.tensors_,
              header);
  }
  AddTensor(batch.row_weights, v1::TENSOR_ROLE_ROW_WEIGHTS, 0, frames.tensors_, header);
  if (!frames.tensors_.empty()) header.set_rows(frames.tensors_[0].rows());
  if (absl::Status status = CheckRows(identity, header, batch); !status.ok()) return status;

  header.set_factor(identity.factor);
  header.set_incarnation(identity.incarnation);
  header.set_step(identity.step);
  header.set_tower(identity.tower);
  header.set_form(v1::BATCH_FORM_RAW);
  header.set_decay(options.decay);
  if (options.weight) header.set_weight(*options.weight);
  if (options.gradient_scale) header.set_gradient_scale(*options.gradient_scale);
  header.set_label(options.label);
  header.set_digest(BatchDigest(header, frames.tensors_));

  int64_t row_bytes = 0;
  for (const MatrixView& matrix : frames.tensors_) row_bytes += matrix.row_bytes();
  const int64_t header_bytes = header.ByteSizeLong();
  if (std::max(header_bytes, row_bytes) + kFrameOverhead > kMaxMessage) {
    return BadBatch(identity, "outputs_grads",
                    absl::StrCat("one row of all tensors is ", row_bytes, " bytes and their ",
                                 "description ", header_bytes, "; each must fit a message, which ",
                                 "is at most ", kMaxMessage, " bytes"));
  }
  frames.rows_per_frame_ =
      std::clamp<int64_t>(max_frame / std::max<int64_t>(row_bytes, 1), 1, header.rows());
  frames.header_shares_ =
      header_bytes + frames.rows_per_frame_ * row_bytes + kFrameOverhead <= kMaxMessage;
  return frames;
}

bool BatchFrames::Next(v1::UpdateRequest& request) {
  if (next_row_ == header_.rows()) return false;
  request.clear_header();
  if (!header_sent_) {
    header_sent_ = true;
    *request.mutable_header() = header_;
    if (!header_shares_) {
      request.clear_rows();
      request.clear_end();
      return true;
    }
  }
  const int64_t count = std::min(rows_per_frame_, header_.rows() - next_row_);
  v1::BatchRows& rows = *request.mutable_rows();
  rows.set_first_row(next_row_);
  rows.set_row_count(count);
  std::string& data = *rows.mutable_data();
  data.clear();  // keeps its memory from frame to frame
  int64_t bytes = 0;
  for (const MatrixView& matrix : tensors_) bytes += count * matrix.row_bytes();
  data.reserve(bytes);
  for (const MatrixView& matrix : tensors_) {
    ForBytes(matrix, next_row_, count, [&](std::span<const std::byte> piece) {
      data.append(reinterpret_cast<const char*>(piece.data()), piece.size());
    });
  }
  rows.set_crc32c(Crc32c(data));
  next_row_ += count;
  request.clear_end();
  if (next_row_ == header_.rows()) request.mutable_end()->set_rows(header_.rows());
  return true;
}

}  // namespace fisherd
