#include "core/kinds/fully_connected_diagonal/saved_batch.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "core/kinds/kind.h"
#include "tests/core/test_backend.h"

namespace fisherd::core {
namespace {

FactorSpec Spec(DataType dtype) {
  FactorSpec spec;
  spec.kind = FullyConnectedDiagonalSpec{5, 19, true};
  spec.dtype = dtype;
  return spec;
}

BatchHeader Header(BatchForm form) {
  BatchHeader header;
  header.rows = 3;
  header.form = form;
  header.decay = 0.5;
  if (form == BatchForm::kContribution) {
    header.tensors = {{TensorRole::kContribution, 0, DataType::kFloat32, {6, 19}}};
  } else {
    header.tensors = {{TensorRole::kInputs, 0, DataType::kFloat32, {3, 5}},
                      {TensorRole::kOutputsGrads, 0, DataType::kFloat32, {3, 19}},
                      {TensorRole::kRowWeights, 0, DataType::kFloat32, {3}}};
  }
  return header;
}

std::unique_ptr<Batch> Filled(const Kind& kind, BatchForm form) {
  const BatchHeader header = Header(form);
  EXPECT_TRUE(kind.CheckBatch(header).ok()) << kind.CheckBatch(header);
  auto batch = kind.NewBatch(header, nullptr);
  for (size_t t = 0; t < header.tensors.size(); ++t) {
    int64_t size = 1;
    for (const int64_t n : header.tensors[t].shape) size *= n;
    std::vector<float> elements(static_cast<size_t>(size));
    for (size_t i = 0; i < elements.size(); ++i) elements[i] = 0.3f * static_cast<float>(i % 7);
    EXPECT_TRUE(batch->Add(static_cast<int>(t), 0, std::as_bytes(std::span(elements))).ok());
  }
  EXPECT_TRUE(batch->Finish().ok());
  return batch;
}

std::vector<std::byte> Advanced(const Kind& kind, const Batch& batch) {
  const auto state = TestBackend().NewMatrix(kind.state_shape());
  EXPECT_EQ(state->Fill(1), absl::OkStatus());
  const Batch* const batches[] = {&batch};
  kind.Advance({.decay = 0.5, .weight = 0.7}, batches, false, *state, *state, TestBackend());
  const auto host = *OnHost({std::shared_ptr<void>(), state.get()});
  return {host->bytes().begin(), host->bytes().end()};
}

TEST(SavedBatchTest, ALoadedBatchGivesTheSameBits) {
  for (const DataType dtype : {DataType::kFloat32, DataType::kFloat64}) {
    const auto kind = *MakeKind(Spec(dtype));
    for (const BatchForm form : {BatchForm::kRaw, BatchForm::kContribution}) {
      const auto batch = Filled(*kind, form);
      const std::string bytes = kind->SaveBatch(*batch);
      EXPECT_EQ(std::ssize(bytes), kind->SavedBytes(*batch));
      const auto loaded = kind->LoadBatch(bytes);
      ASSERT_NE(loaded, nullptr);
      EXPECT_EQ(Advanced(*kind, *loaded), Advanced(*kind, *batch));
      const Batch* const one[] = {batch.get()};
      const Batch* const other[] = {loaded.get()};
      EXPECT_EQ(kind->BoundOf(other), kind->BoundOf(one));
      EXPECT_EQ(kind->SaveBatch(*loaded), bytes);
      EXPECT_FALSE(loaded->Finish().ok());
    }
  }
}

TEST(SavedBatchTest, OtherBytesAreNoBatch) {
  const auto kind = *MakeKind(Spec(DataType::kFloat32));
  const std::string bytes = kind->SaveBatch(*Filled(*kind, BatchForm::kRaw));
  for (size_t size = 0; size < bytes.size(); size += 5) {
    EXPECT_EQ(kind->LoadBatch(std::string_view(bytes).substr(0, size)), nullptr) << size;
  }
  EXPECT_EQ(kind->LoadBatch(bytes + "x"), nullptr);
  for (const int64_t rows : {int64_t{-1}, int64_t{0}, int64_t{4}, int64_t{1} << 62}) {
    std::string changed = bytes;
    std::memcpy(changed.data(), &rows, sizeof(rows));
    EXPECT_EQ(kind->LoadBatch(changed), nullptr) << rows;
  }
}

}  // namespace
}  // namespace fisherd::core
