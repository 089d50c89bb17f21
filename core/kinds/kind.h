// A kind of factor answers four questions, and nothing else in the house knows it by name: which
// tensors make a batch, what one step adds, what the state is, and which operator reads it. A new
// kind is a new folder beside this file and one line in kinds.cc.

#ifndef FISHERD_CORE_KINDS_KIND_H_
#define FISHERD_CORE_KINDS_KIND_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/backend.h"
#include "core/batch_header.h"
#include "core/factor_spec.h"
#include "core/linear_operator.h"
#include "core/matrix.h"

namespace fisherd::core {

// One tower's part of one step, in the form in which its kind wants it. Filled by one thread at a
// time, read-only afterwards.
class Batch {
 public:
  virtual ~Batch() = default;

  // Takes elements first … of the header's tensor `tensor`: whole elements in the wire's type, not
  // necessarily aligned. Every element comes once; elements of one tensor ascend, and source s of a
  // row comes before source s + 1. INVALID_ARGUMENT (NON_FINITE_INPUT) for a value that is not
  // finite or whose square is not; the message names tensor, row and column.
  virtual absl::Status Add(int tensor, int64_t first_element,
                           std::span<const std::byte> elements) = 0;

  // Called once, after every element has come. INVALID_ARGUMENT if the batch is not one after all
  // (row weights without a positive sum).
  virtual absl::Status Finish() = 0;
};

// Immutable and thread-safe; one per factor.
class Kind {
 public:
  virtual ~Kind() = default;

  // "FullyConnectedDiagonal".
  virtual std::string_view name() const = 0;

  // What the state is.
  virtual MatrixShape state_shape() const = 0;

  // Which tensors make a batch: INVALID_ARGUMENT naming the field if the header's rows, tensors or
  // gradient_scale are not those of a batch of this factor; OUT_OF_RANGE for a source that it has
  // not.
  virtual absl::Status CheckBatch(const BatchHeader& header) const = 0;
  // Bytes that NewBatch would hold. The header has passed CheckBatch.
  virtual int64_t HeldBytes(const BatchHeader& header) const = 0;
  // Empty, to be filled, its elements in `memory` (null: the heap); nullptr if there is no memory.
  virtual std::unique_ptr<Batch> NewBatch(const BatchHeader& header, HostMemory* memory) const = 0;

  // A finished batch as bytes, their number, and back: with the same bits in Advance. LoadBatch
  // gives null for bytes that are no batch of this factor, and if there is no memory.
  virtual int64_t SavedBytes(const Batch& batch) const = 0;
  virtual std::string SaveBatch(const Batch& batch) const = 0;
  virtual std::unique_ptr<Batch> LoadBatch(std::string_view bytes) const = 0;

  // What one step adds: to = decay·from + weight·C(batches), one finished batch per tower in their
  // order. `to` may be `from`. Returns what Backend::Advance does.
  virtual double Advance(const StepParameters& step, std::span<const Batch* const> batches,
                         bool find_largest, const Matrix& from, Matrix& to,
                         Backend& backend) const = 0;
  // An upper bound of every element of C(batches) and of every sum on the way to it; infinite if it
  // may exceed the state's type.
  virtual double BoundOf(std::span<const Batch* const> batches) const = 0;

  // Which operator reads it.
  virtual std::shared_ptr<const LinearOperator> Read(
      CovarianceView covariance, std::optional<LinearOperatorDiag::Power> power) const = 0;
};

// The kind that `spec` asks for; INVALID_ARGUMENT naming the field if the specification is not one
// (no kind, dims < 1 or beyond what can be addressed, towers, sources, dtype, initial_covariance
// with zero_debias).
absl::StatusOr<std::unique_ptr<const Kind>> MakeKind(const FactorSpec& spec);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_KINDS_KIND_H_
