#include "client/cpp/batch_frames.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "client/cpp/crc32c.h"
#include "fisherd/status.h"

namespace fisherd {
namespace {

using testing::HasSubstr;

const BatchIdentity kIdentity = {.factor = "f", .incarnation = 7, .step = 3, .tower = 1};
const StepOptions kOptions = {.decay = 0.9};

const auto kPool = std::make_shared<BufferPool>(1 << 20);

std::vector<v1::UpdateRequest> Cut(const Batch& batch, int64_t max_frame,
                                   const StepOptions& options = kOptions) {
  const absl::StatusOr<BatchTensors> tensors = RawTensors(kIdentity, batch);
  EXPECT_TRUE(tensors.ok()) << tensors.status();
  const auto encoded = EncodeBatch(kIdentity, *tensors, options, max_frame, kPool);
  EXPECT_TRUE(encoded.ok()) << encoded.status();
  EXPECT_EQ((*encoded)->bytes, tensors->bytes());
  return (*encoded)->messages;
}

// Puts the frames of a batch of float tensors with `cols` columns each together again.
std::vector<Matrix<float>> Assemble(const std::vector<v1::UpdateRequest>& messages, int64_t rows,
                                    const std::vector<int64_t>& cols) {
  std::vector<Matrix<float>> tensors;
  for (int64_t width : cols) tensors.push_back(Matrix<float>::Constant(rows, width, -99));
  int64_t next_row = 0;
  for (const v1::UpdateRequest& message : messages) {
    if (!message.has_rows()) continue;
    EXPECT_EQ(message.rows().first_row(), next_row);
    EXPECT_GE(message.rows().row_count(), 1);
    EXPECT_EQ(message.rows().crc32c(), Crc32c(message.rows().data()));
    const char* data = message.rows().data().data();
    for (Matrix<float>& tensor : tensors) {
      const size_t bytes = message.rows().row_count() * tensor.cols() * sizeof(float);
      std::memcpy(tensor.row(next_row).data(), data, bytes);
      data += bytes;
    }
    EXPECT_EQ(data, message.rows().data().data() + message.rows().data().size());
    next_row += message.rows().row_count();
  }
  EXPECT_EQ(next_row, rows);
  return tensors;
}

class BatchFramesTest : public testing::Test {
 protected:
  const Matrix<float> a_ = Matrix<float>::Random(7, 3);
  const Matrix<float> g_ = Matrix<float>::Random(7, 2);
  const Vector<float> w_ = Vector<float>::Ones(7);
  const Batch batch_ = {.inputs = a_, .outputs_grads = {g_}};  // 20 bytes a row
};

TEST_F(BatchFramesTest, HeaderRowsAndEndShareAMessageIfTheyFit) {
  const auto messages = Cut(batch_, 1 << 20);
  ASSERT_EQ(messages.size(), 1u);
  EXPECT_TRUE(messages[0].has_header());
  EXPECT_EQ(messages[0].rows().row_count(), 7);
  EXPECT_EQ(messages[0].end().rows(), 7);
  EXPECT_FALSE(messages[0].has_hello() || messages[0].has_open());
}

TEST_F(BatchFramesTest, EveryCutCarriesTheSameElements) {
  for (int64_t max_frame = 1; max_frame <= 7 * 20 + 1; ++max_frame) {
    const auto messages = Cut(batch_, max_frame);
    const int64_t rows_per_frame = std::max<int64_t>(1, max_frame / 20);
    ASSERT_EQ(messages.size(), (7 + rows_per_frame - 1) / rows_per_frame);
    for (size_t i = 0; i < messages.size(); ++i) {
      EXPECT_EQ(messages[i].has_header(), i == 0);
      EXPECT_EQ(messages[i].has_end(), i + 1 == messages.size());
    }
    const auto tensors = Assemble(messages, 7, {3, 2});
    EXPECT_EQ(tensors[0], a_);
    EXPECT_EQ(tensors[1], g_);
  }
}

TEST_F(BatchFramesTest, TheHeaderSaysEverything) {
  const Matrix<double> g64 = Matrix<double>::Random(7, 2);
  const Batch batch = {.inputs = a_, .outputs_grads = {g_, g64}, .row_weights = w_};
  const v1::BatchHeader header =
      Cut(batch, 1 << 20, {.decay = 0.5, .weight = 2, .gradient_scale = 64, .label = 11})[0]
          .header();
  EXPECT_EQ(header.factor(), "f");
  EXPECT_EQ(header.incarnation(), 7u);
  EXPECT_EQ(header.step(), 3);
  EXPECT_EQ(header.tower(), 1);
  EXPECT_EQ(header.rows(), 7);
  EXPECT_EQ(header.form(), v1::BATCH_FORM_RAW);
  EXPECT_EQ(header.decay(), 0.5);
  EXPECT_EQ(header.weight(), 2);
  EXPECT_EQ(header.gradient_scale(), 64);
  EXPECT_EQ(header.label(), 11u);
  EXPECT_EQ(header.digest().size(), 16u);
  ASSERT_EQ(header.tensors_size(), 4);
  EXPECT_EQ(header.tensors(0).ShortDebugString(),
            "role: TENSOR_ROLE_INPUTS dtype: DATA_TYPE_FLOAT32 shape: 7 shape: 3");
  EXPECT_EQ(header.tensors(1).ShortDebugString(),
            "role: TENSOR_ROLE_OUTPUTS_GRADS dtype: DATA_TYPE_FLOAT32 shape: 7 shape: 2");
  EXPECT_EQ(header.tensors(2).ShortDebugString(),
            "role: TENSOR_ROLE_OUTPUTS_GRADS source: 1 dtype: DATA_TYPE_FLOAT64 shape: 7 shape: 2");
  EXPECT_EQ(header.tensors(3).ShortDebugString(),
            "role: TENSOR_ROLE_ROW_WEIGHTS dtype: DATA_TYPE_FLOAT32 shape: 7");
}

TEST_F(BatchFramesTest, WhatIsLeftToTheServerIsAbsent) {
  const v1::BatchHeader header = Cut(batch_, 1 << 20)[0].header();
  EXPECT_TRUE(header.has_decay());
  EXPECT_FALSE(header.has_weight());
  EXPECT_FALSE(header.has_gradient_scale());
}

TEST_F(BatchFramesTest, StridedMatricesTravelWithoutTheirGaps) {
  const Matrix<float> wide = Matrix<float>::Random(7, 9);
  const Batch batch = {.inputs = wide.middleCols(4, 3), .outputs_grads = {g_}};
  const auto tensors = Assemble(Cut(batch, 40), 7, {3, 2});
  EXPECT_EQ(tensors[0], wide.middleCols(4, 3));
}

TEST_F(BatchFramesTest, TheDigestDependsOnContentNotOnFramesOrStrides) {
  const std::string digest = Cut(batch_, 1 << 20)[0].header().digest();
  for (int64_t max_frame : {1, 20, 41, 139}) {
    EXPECT_EQ(Cut(batch_, max_frame)[0].header().digest(), digest);
  }
  Matrix<float> wide = Matrix<float>::Random(7, 9);
  wide.middleCols(4, 3) = a_;
  EXPECT_EQ(Cut({.inputs = wide.middleCols(4, 3), .outputs_grads = {g_}}, 40)[0].header().digest(),
            digest);
}

TEST_F(BatchFramesTest, AnythingElseThatChangesChangesTheDigest) {
  const v1::BatchHeader header = Cut(batch_, 1 << 20)[0].header();
  const std::vector<MatrixView> tensors = {a_, g_};
  const std::string digest = BatchDigest(header, tensors);
  EXPECT_EQ(digest, header.digest());
  const auto with = [&](auto change) {
    v1::BatchHeader changed = header;
    change(changed);
    return BatchDigest(changed, tensors);
  };
  EXPECT_NE(with([](auto& h) { h.set_factor("g"); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_incarnation(8); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_step(4); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_tower(0); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_rows(8); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_form(v1::BATCH_FORM_CONTRIBUTION); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_decay(0.8); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_weight(0); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_gradient_scale(1); }), digest);
  EXPECT_NE(with([](auto& h) { h.set_label(1); }), digest);
  EXPECT_NE(with([](auto& h) { h.mutable_tensors(0)->set_role(v1::TENSOR_ROLE_WEIGHT); }), digest);
  EXPECT_NE(with([](auto& h) { h.mutable_tensors(1)->set_source(1); }), digest);
  EXPECT_NE(with([](auto& h) { h.mutable_tensors(0)->set_dtype(v1::DATA_TYPE_FLOAT64); }), digest);
  EXPECT_NE(with([](auto& h) { h.mutable_tensors(0)->set_shape(1, 4); }), digest);
  for (int64_t row = 0; row < 7; ++row) {
    Matrix<float> g = g_;
    g(row, 1) = -g(row, 1);
    EXPECT_NE(BatchDigest(header, {a_, g}), digest);
  }
}

TEST(BatchFramesMemoryTest, GoesBackToThePool) {
  const auto pool = std::make_shared<BufferPool>(1 << 20);
  const Matrix<float> a = Matrix<float>::Random(64, 256);
  const auto encode = [&] {
    return *EncodeBatch(kIdentity, *RawTensors(kIdentity, {.inputs = a}), kOptions, 1 << 20, pool);
  };
  encode();
  EXPECT_GE(pool->bytes(), 64 << 10);
  const auto again = encode();
  EXPECT_EQ(pool->bytes(), 0);
  EXPECT_EQ(Assemble(again->messages, 64, {256})[0], a);
}

class SharedBatchTest : public testing::Test {
 protected:
  std::shared_ptr<const EncodedBatch> Encode(const Matrix<float>& inputs) {
    return *EncodeBatch(kIdentity,
                        *RawTensors(kIdentity, {.inputs = inputs, .outputs_grads = {g_}}), kOptions,
                        /*max_frame=*/10'000, kPool, memory_.get());
  }

  const Matrix<float> a_ = Matrix<float>::Random(64, 256);  // 64 KiB
  const Matrix<float> g_ = Matrix<float>::Random(64, 2);
  const std::shared_ptr<SharedMemory> memory_ = *SharedMemory::Create(128 << 10);
};

TEST_F(SharedBatchTest, LiesInABlockAndItsMessagesSayWhere) {
  const auto batch = Encode(a_);
  ASSERT_NE(batch->block, nullptr);
  EXPECT_GE(memory_->bytes_in_use(), batch->bytes);
  int64_t at = batch->block->offset();
  for (const v1::UpdateRequest& message : batch->messages) {
    const v1::UpdateRequest sent = batch->Addressed(message, "token");
    EXPECT_EQ(sent.rows().data(), "");
    EXPECT_EQ(sent.rows().crc32c(), 0u);
    EXPECT_EQ(sent.rows().shared().region(), "token");
    EXPECT_EQ(sent.rows().shared().offset(), at);
    at += sent.rows().shared().size();
    EXPECT_EQ(sent.has_header(), message.has_header());
    EXPECT_EQ(sent.has_end(), message.has_end());
  }
  EXPECT_EQ(at, batch->block->offset() + batch->bytes);
}

TEST_F(SharedBatchTest, WithoutARegionItIsWhatWouldHaveTravelled) {
  const auto batch = Encode(a_);
  const auto wire =
      *EncodeBatch(kIdentity, *RawTensors(kIdentity, {.inputs = a_, .outputs_grads = {g_}}),
                   kOptions, 10'000, kPool);
  EXPECT_EQ(wire->block, nullptr);
  ASSERT_EQ(batch->messages.size(), wire->messages.size());
  for (size_t i = 0; i < wire->messages.size(); ++i) {
    EXPECT_EQ(batch->Addressed(batch->messages[i], "").SerializeAsString(),
              wire->messages[i].SerializeAsString());
  }
}

TEST_F(SharedBatchTest, WhatIsSmallOrFindsNoRoomTravels) {
  EXPECT_EQ(Encode(a_.leftCols(4))->block, nullptr);
  const auto first = Encode(a_);
  const auto second = Encode(a_);
  EXPECT_NE(first->block, nullptr);
  EXPECT_EQ(second->block, nullptr);
  EXPECT_EQ(Assemble(second->messages, 64, {256, 2})[0], a_);
}

// A pinned value: the digest is part of what a replay in another process must repeat.
TEST(BatchDigestTest, IsStable) {
  v1::BatchHeader header;
  header.set_factor("f");
  const Matrix<float> m = Matrix<float>::Ones(1, 1);
  EXPECT_EQ(BatchDigest(header, {m}), BatchDigest(header, {m}));
  std::string hex;
  for (unsigned char c : BatchDigest(header, {m})) {
    hex += "0123456789abcdef"[c >> 4];
    hex += "0123456789abcdef"[c & 15];
  }
  EXPECT_EQ(hex, "4a56e60766549e48c7b476ca7266a8ee");
}

TEST_F(BatchFramesTest, AContributionTravelsAsOneTensorOfItsOwnRows) {
  const Matrix<float> c = Matrix<float>::Random(4, 2);
  const auto encode = [&](std::optional<double> examples) {
    return (*EncodeBatch(kIdentity, ContributionTensors(c, 7, examples),
                         {.decay = 0.5, .gradient_scale = 64}, /*max_frame=*/16, kPool))
        ->messages;
  };
  const std::vector<v1::UpdateRequest> messages = encode(2.5);
  ASSERT_EQ(messages.size(), 2u);
  const v1::BatchHeader& header = messages[0].header();
  EXPECT_EQ(header.form(), v1::BATCH_FORM_CONTRIBUTION);
  EXPECT_EQ(header.rows(), 7);
  EXPECT_EQ(header.examples(), 2.5);
  EXPECT_FALSE(header.has_gradient_scale()) << "it is in the squares already";
  ASSERT_EQ(header.tensors_size(), 1);
  EXPECT_EQ(header.tensors(0).ShortDebugString(),
            "role: TENSOR_ROLE_CONTRIBUTION dtype: DATA_TYPE_FLOAT32 shape: 4 shape: 2");
  EXPECT_EQ(messages[1].end().rows(), 4);
  EXPECT_EQ(Assemble(messages, 4, {2})[0], c);
  EXPECT_FALSE(encode({})[0].header().has_examples());
  EXPECT_NE(encode({})[0].header().digest(), header.digest());
}

TEST_F(BatchFramesTest, RefusesWhatCannotBeCutByRows) {
  const auto refused = [](const Batch& batch, const char* field, const char* message) {
    const absl::StatusOr<BatchTensors> tensors = RawTensors(kIdentity, batch);
    const absl::Status status =
        tensors.ok() ? EncodeBatch(kIdentity, *tensors, kOptions, 1 << 20, kPool).status()
                     : tensors.status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(ErrorReason(status), "BAD_ARGUMENT");
    EXPECT_EQ(ErrorMetadata(status).at("field"), field);
    EXPECT_EQ(ErrorMetadata(status).at("factor"), "f");
    EXPECT_EQ(ErrorMetadata(status).at("tower"), "1");
    EXPECT_THAT(std::string(status.message()), HasSubstr("factor \"f\", tower 1, step 3: "));
    EXPECT_THAT(std::string(status.message()), HasSubstr(message));
  };
  refused({}, "inputs", "no tensors");
  refused({.inputs = a_, .outputs_grads = {g_, g_.topRows(6)}}, "outputs_grads[1]",
          "outputs_grads[1] has 6 rows");
  const Matrix<float> none(0, 3);
  refused({.inputs = none}, "inputs", "inputs has 0 rows");
  refused({.inputs = a_, .outputs_grads = {g_}, .row_weights = g_}, "row_weights",
          "row_weights has 2 columns");
  const Matrix<float> wide = Matrix<float>::Zero(1, 1 << 20);
  refused({.inputs = wide}, "outputs_grads", "one row of all tensors is 4194304 bytes");
}

TEST(BatchFramesLargeTest, NoMessageIsLargerThanTheProtocolAllows) {
  // A row close to a whole message: the header does not fit beside it.
  const Matrix<float> wide = Matrix<float>::Random(2, (1 << 20) - 20);
  const auto messages = Cut({.inputs = wide}, kLargestMaxFrame);
  ASSERT_EQ(messages.size(), 3u);
  EXPECT_TRUE(messages[0].has_header() && !messages[0].has_rows() && !messages[0].has_end());
  EXPECT_TRUE(messages[1].has_rows() && !messages[1].has_header() && !messages[1].has_end());
  EXPECT_TRUE(messages[2].has_rows() && messages[2].has_end());
  for (const auto& message : messages) EXPECT_LE(message.ByteSizeLong(), kMaxMessage);
  EXPECT_EQ(Assemble(messages, 2, {wide.cols()})[0], wide);
}

}  // namespace
}  // namespace fisherd
