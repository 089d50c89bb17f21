#include "server/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "core/error.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"

namespace fisherd::server {
namespace {

using ::google::protobuf::TextFormat;
using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

template <typename Message>
Message Parse(const std::string& text) {
  Message message;
  EXPECT_TRUE(TextFormat::ParseFromString(text, &message)) << text;
  return message;
}

void ExpectBad(const absl::Status& status, const std::string& field, const std::string& message) {
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
  const auto details = core::GetErrorDetails(status);
  ASSERT_TRUE(details.has_value());
  EXPECT_EQ(details->reason, core::reason::kBadArgument);
  EXPECT_EQ(details->metadata.at("field"), field);
  EXPECT_EQ(std::string(status.message()), field + " is " + message);
}

TEST(CodecTest, FactorSpecDefaults) {
  const auto spec = FromProto(
      Parse<v1::FactorSpec>("fully_connected_diagonal { input_size: 3 output_size: 2 }"), "spec");
  ASSERT_TRUE(spec.ok()) << spec.status();
  core::FactorSpec expected;
  expected.kind = core::FullyConnectedDiagonalSpec{3, 2, false};
  expected.towers = 1;
  expected.sources = 1;
  expected.dtype = core::DataType::kFloat32;
  expected.tower_weighting = core::TowerWeighting::kTowerMean;
  expected.zero_debias = true;
  expected.initial_covariance = core::InitialCovariance::kZeros;
  EXPECT_EQ(*spec, expected);
}

TEST(CodecTest, FactorSpecThereAndBack) {
  const auto message = Parse<v1::FactorSpec>(R"pb(
    fully_connected_diagonal { input_size: 3 output_size: 2 has_bias: true }
    towers: 4
    sources: 5
    dtype: DATA_TYPE_FLOAT64
    tower_weighting: TOWER_WEIGHTING_EXAMPLE_WEIGHTED
    zero_debias: false
    initial_covariance: INITIAL_COVARIANCE_ONES
    update_mode: UPDATE_MODE_ASYNCHRONOUS
    gather_policy: GATHER_POLICY_PARTIAL
    gather_timeout { seconds: 2 nanos: 500000000 }
    window: 7
  )pb");
  const auto spec = FromProto(message, "spec");
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(std::get<core::FullyConnectedDiagonalSpec>(spec->kind),
            (core::FullyConnectedDiagonalSpec{3, 2, true}));
  EXPECT_EQ(spec->towers, 4);
  EXPECT_EQ(spec->sources, 5);
  EXPECT_EQ(spec->dtype, core::DataType::kFloat64);
  EXPECT_EQ(spec->tower_weighting, core::TowerWeighting::kExampleWeighted);
  EXPECT_FALSE(spec->zero_debias);
  EXPECT_EQ(spec->initial_covariance, core::InitialCovariance::kOnes);
  EXPECT_EQ(spec->update_mode, core::UpdateMode::kAsynchronous);
  EXPECT_EQ(spec->gather_policy, core::GatherPolicy::kPartial);
  EXPECT_EQ(spec->gather_timeout, absl::Seconds(2.5));
  EXPECT_EQ(spec->window, 7);
  EXPECT_TRUE(MessageDifferencer::Equals(ToProto(*spec), message));
}

TEST(CodecTest, FactorSpecErrorsNameTheField) {
  ExpectBad(FromProto(v1::FactorSpec(), "spec").status(), "spec.kind",
            "absent; expected a kind: fully_connected_diagonal");
  const auto good = Parse<v1::FactorSpec>("fully_connected_diagonal {}");
  auto spec = good;
  spec.set_dtype(static_cast<v1::DataType>(9));
  ExpectBad(FromProto(spec, "spec").status(), "spec.dtype",
            "9; expected FLOAT32 (1), FLOAT64 (2), BFLOAT16 (3) or FLOAT16 (4)");
  spec = good;
  spec.set_tower_weighting(static_cast<v1::TowerWeighting>(-1));
  ExpectBad(FromProto(spec, "spec").status(), "spec.tower_weighting",
            "-1; expected TOWER_MEAN (1) or EXAMPLE_WEIGHTED (2)");
  spec = good;
  spec.set_initial_covariance(static_cast<v1::InitialCovariance>(3));
  ExpectBad(FromProto(spec, "spec").status(), "spec.initial_covariance",
            "3; expected ZEROS (1) or ONES (2)");
}

TEST(CodecTest, OperatorsThereAndBack) {
  for (const char* text : {
           "covariance {}",
           "matpower { exponent: -0.75 damping { value: 0.5 } }",
           "matpower { exponent: 2 damping { name: 'global' } }",
           "cholesky { damping { value: 0 } }",
           "cholesky_inverse { damping { name: 'x' } }",
       }) {
    const auto message = Parse<v1::Operator>(text);
    const auto op = FromProto(message, "operator");
    ASSERT_TRUE(op.ok()) << op.status();
    EXPECT_TRUE(MessageDifferencer::Equals(ToProto(*op), message)) << text;
  }
  const auto op = FromProto(
      Parse<v1::Operator>("matpower { exponent: -1 damping { name: 'global' } }"), "operator");
  EXPECT_EQ(op->kind, core::OperatorKind::kMatpower);
  EXPECT_EQ(op->exponent, -1);
  EXPECT_EQ(op->damping, core::Damping(std::string("global")));
}

TEST(CodecTest, OperatorErrorsNameTheField) {
  ExpectBad(FromProto(v1::Operator(), "operator").status(), "operator.kind",
            "absent; expected covariance, matpower, cholesky or cholesky_inverse");
  ExpectBad(FromProto(Parse<v1::Operator>("matpower { exponent: 1 }"), "operator").status(),
            "operator.matpower.damping",
            "absent; expected a value, or the name of a damping function");
  ExpectBad(FromProto(Parse<v1::Operator>("cholesky {}"), "op").status(), "op.cholesky.damping",
            "absent; expected a value, or the name of a damping function");
  ExpectBad(FromProto(Parse<v1::Operator>("cholesky_inverse { damping {} }"), "op").status(),
            "op.cholesky_inverse.damping",
            "absent; expected a value, or the name of a damping function");
}

TEST(CodecTest, RefreshPolicies) {
  const auto absent = FromProto(v1::RefreshPolicy(), "policy");
  ASSERT_TRUE(absent.ok());
  EXPECT_EQ(*absent, (core::RefreshPolicy{core::RefreshKind::kOnRead, 0}));
  for (const char* text : {"kind: REFRESH_KIND_ON_READ", "kind: REFRESH_KIND_ON_REQUEST",
                           "kind: REFRESH_KIND_EVERY_N_STEPS steps: 7"}) {
    const auto message = Parse<v1::RefreshPolicy>(text);
    const auto policy = FromProto(message, "policy");
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_TRUE(MessageDifferencer::Equals(ToProto(*policy), message)) << text;
  }
  ExpectBad(
      FromProto(Parse<v1::RefreshPolicy>("kind: REFRESH_KIND_EVERY_N_STEPS"), "policy").status(),
      "policy.steps", "0; expected at least 1 with EVERY_N_STEPS");
  ExpectBad(FromProto(Parse<v1::RefreshPolicy>("steps: 2"), "policy").status(), "policy.steps",
            "2; expected 0 unless kind is EVERY_N_STEPS");
  v1::RefreshPolicy unknown;
  unknown.set_kind(static_cast<v1::RefreshKind>(4));
  ExpectBad(FromProto(unknown, "policy").status(), "policy.kind",
            "4; expected ON_READ (1), EVERY_N_STEPS (2) or ON_REQUEST (3)");
}

TEST(CodecTest, LayoutsAndTypes) {
  EXPECT_EQ(*FromProto(v1::LAYOUT_UNSPECIFIED, "layout"), core::Layout::kInOut);
  EXPECT_EQ(*FromProto(v1::LAYOUT_IN_OUT, "layout"), core::Layout::kInOut);
  EXPECT_EQ(*FromProto(v1::LAYOUT_OUT_IN, "layout"), core::Layout::kOutIn);
  ExpectBad(FromProto(static_cast<v1::Layout>(3), "layout").status(), "layout",
            "3; expected IN_OUT (1) or OUT_IN (2)");
  for (int type = v1::DataType_MIN; type <= v1::DataType_MAX; ++type) {
    const auto converted = FromProto(static_cast<v1::DataType>(type), "dtype");
    ASSERT_TRUE(converted.ok());
    EXPECT_EQ(ToProto(*converted), type);
  }
  EXPECT_FALSE(FromProto(static_cast<v1::DataType>(v1::DataType_MAX + 1), "dtype").ok());
}

TEST(CodecTest, TensorsThereAndBack) {
  for (int role = 1; role <= v1::TensorRole_MAX; ++role) {
    v1::TensorSpec message;
    message.set_role(static_cast<v1::TensorRole>(role));
    message.set_source(-3);
    message.set_dtype(v1::DATA_TYPE_BFLOAT16);
    message.add_shape(std::numeric_limits<int64_t>::min());
    message.add_shape(4);
    const auto tensor = FromProto(message, "tensors[0]");
    ASSERT_TRUE(tensor.ok()) << tensor.status();
    EXPECT_TRUE(MessageDifferencer::Equals(ToProto(*tensor), message));
  }
  ExpectBad(FromProto(v1::TensorSpec(), "tensors[3]").status(), "tensors[3].role",
            "0; expected one of TensorRole, 1 to 7");
  ExpectBad(FromProto(Parse<v1::TensorSpec>("role: TENSOR_ROLE_BIAS"), "t").status(), "t.dtype",
            "absent; expected the type of the tensor's elements");
}

TEST(CodecTest, BatchHeader) {
  auto message = Parse<v1::BatchHeader>(R"pb(
    factor: "mlp/0"
    incarnation: 18446744073709551615
    step: 12
    tower: 3
    rows: 32
    form: BATCH_FORM_RAW
    decay: 0
    weight: 0.25
    gradient_scale: 32
    tensors { role: TENSOR_ROLE_INPUTS dtype: DATA_TYPE_FLOAT16 shape: 32 shape: 5 }
    digest: "0123456789abcde\377"
    label: 99
  )pb");
  const auto header = FromProto(message);
  ASSERT_TRUE(header.ok()) << header.status();
  EXPECT_EQ(header->incarnation, std::numeric_limits<uint64_t>::max());
  EXPECT_EQ(header->step, 12);
  EXPECT_EQ(header->tower, 3);
  EXPECT_EQ(header->rows, 32);
  EXPECT_EQ(header->decay, 0.0);
  EXPECT_EQ(header->weight, 0.25);
  EXPECT_EQ(header->gradient_scale, 32);
  ASSERT_EQ(header->tensors.size(), 1);
  EXPECT_EQ(header->tensors[0],
            (core::TensorSpec{core::TensorRole::kInputs, 0, core::DataType::kFloat16, {32, 5}}));
  EXPECT_EQ(header->digest[0], std::byte{'0'});
  EXPECT_EQ(header->digest[15], std::byte{0xFF});
  EXPECT_EQ(header->label, 99);

  message.clear_decay();
  message.clear_weight();
  message.clear_gradient_scale();
  message.clear_form();
  const auto sparse = FromProto(message);
  ASSERT_TRUE(sparse.ok()) << sparse.status();
  EXPECT_EQ(sparse->decay, std::nullopt);
  EXPECT_EQ(sparse->weight, std::nullopt);
  EXPECT_EQ(sparse->gradient_scale, 1);
}

TEST(CodecTest, BatchHeaderErrorsNameTheField) {
  v1::BatchHeader header;
  ExpectBad(FromProto(header).status(), "digest", "0 bytes; expected 16 bytes");
  header.set_digest("0123456789abcdef");
  header.add_tensors()->set_role(v1::TENSOR_ROLE_INPUTS);
  ExpectBad(FromProto(header).status(), "tensors[0].dtype",
            "absent; expected the type of the tensor's elements");
  header.set_form(static_cast<v1::BatchForm>(3));
  ExpectBad(FromProto(header).status(), "form", "3; expected RAW (1) or CONTRIBUTION (2)");
}

TEST(CodecTest, AContributionSaysWhatStoodForN) {
  v1::BatchHeader header;
  header.set_digest("0123456789abcdef");
  EXPECT_EQ(FromProto(header)->form, core::BatchForm::kRaw);
  header.set_form(v1::BATCH_FORM_CONTRIBUTION);
  EXPECT_EQ(FromProto(header)->form, core::BatchForm::kContribution);
  EXPECT_EQ(FromProto(header)->examples, std::nullopt);
  header.set_examples(2.5);
  EXPECT_EQ(FromProto(header)->examples, 2.5);
}

TEST(CodecTest, Versions) {
  const core::Version version{.incarnation = 7, .epoch = 8, .step = 9};
  EXPECT_EQ(FromProto(ToProto(version)), version);

  const auto min = FromProto(Parse<v1::MinVersion>("incarnation: 7 step: 3"), "min_version");
  ASSERT_TRUE(min.ok());
  EXPECT_EQ(min->incarnation, 7);
  EXPECT_EQ(min->step, 3);
  ExpectBad(FromProto(v1::MinVersion(), "min_version").status(), "min_version.incarnation",
            "absent; expected the factor's incarnation, as answers give it");
  ExpectBad(FromProto(Parse<v1::MinVersion>("incarnation: 7 step: -1"), "m").status(), "m.step",
            "-1; expected a step, at least 0");
}

TEST(CodecTest, FactorInfo) {
  core::FactorInfo info;
  info.name = "mlp/0";
  info.spec.kind = core::FullyConnectedDiagonalSpec{2, 5, true};
  info.shape = {.rows = 3, .cols = 5, .dtype = core::DataType::kFloat32};
  info.version = {1, 2, 3};
  info.steps_committed = 4;
  info.steps_failed = 5;
  info.steps_partial = 8;
  info.next = 10;
  info.durable = 9;
  info.open_through = 12;
  info.total_weight = 0.75;
  info.label = 77;
  info.state_bytes = 60;
  info.pinned_bytes = 61;
  info.result_bytes = 62;
  info.estimated_bytes = 63;
  info.held_batches = 6;
  info.held_bytes = 64;
  info.towers = {{.claimed = true, .received_through = 11}, {}};
  info.registrations.resize(2);
  info.registrations[0].op = {.kind = core::OperatorKind::kCholesky,
                              .damping = std::string("global")};
  info.registrations[0].computed_from = core::Version{1, 2, 2};
  info.registrations[0].damping = 0.5;
  const v1::FactorInfo expected = Parse<v1::FactorInfo>(R"pb(
    name: "mlp/0"
    spec {
      fully_connected_diagonal { input_size: 2 output_size: 5 has_bias: true }
      towers: 1
      sources: 1
      dtype: DATA_TYPE_FLOAT32
      tower_weighting: TOWER_WEIGHTING_TOWER_MEAN
      zero_debias: true
      initial_covariance: INITIAL_COVARIANCE_ZEROS
      update_mode: UPDATE_MODE_SYNCHRONOUS
      gather_policy: GATHER_POLICY_FAIL
    }
    version { incarnation: 1 epoch: 2 step: 3 }
    steps_committed: 4
    steps_failed: 5
    steps_partial: 8
    next: 10
    durable: 9
    open_through: 12
    total_weight: 0.75
    label: 77
    shape: 3
    shape: 5
    state_bytes: 60
    pinned_bytes: 61
    result_bytes: 62
    estimated_bytes: 63
    held_batches: 6
    held_bytes: 64
    towers { tower: 0 claimed: true received_through: 11 }
    towers { tower: 1 }
    registrations {
      operator { cholesky { damping { name: "global" } } }
      policy { kind: REFRESH_KIND_ON_READ }
      computed_from { incarnation: 1 epoch: 2 step: 2 }
      damping: 0.5
    }
    registrations {
      operator { covariance {} }
      policy { kind: REFRESH_KIND_ON_READ }
    }
  )pb");
  const v1::FactorInfo message = ToProto(info);
  EXPECT_TRUE(MessageDifferencer::Equals(message, expected)) << message.DebugString();
}

TEST(CodecTest, Progress) {
  core::Progress progress{.incarnation = 1,
                          .epoch = 2,
                          .towers = 3,
                          .next = 4,
                          .durable = 5,
                          .open_through = 6,
                          .window = 7,
                          .missed = {{8, 9, core::StepOutcome::kFailed}},
                          .deleted = false};
  const v1::Progress expected = Parse<v1::Progress>(R"pb(
    factor: "mlp/0"
    tower: 10
    incarnation: 1
    epoch: 2
    towers: 3
    next: 4
    durable: 5
    open_through: 6
    window: 7
    missed { first_step: 8 last_step: 9 outcome: STEP_OUTCOME_FAILED }
  )pb");
  const v1::Progress message = ToProto(progress, "mlp/0", 10);
  EXPECT_TRUE(MessageDifferencer::Equals(message, expected)) << message.DebugString();
}

}  // namespace
}  // namespace fisherd::server
