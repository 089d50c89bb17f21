#include "client/ctl/render.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include "fisherd/operators.h"

namespace fisherd::ctl {
namespace {

using testing::HasSubstr;

v1::FactorInfo Factor() {
  v1::FactorInfo factor;
  EXPECT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(
        name: "mlp/0"
        spec {
          fully_connected_diagonal { input_size: 64 output_size: 128 has_bias: true }
          towers: 2
          sources: 1
          dtype: DATA_TYPE_FLOAT32
          tower_weighting: TOWER_WEIGHTING_TOWER_MEAN
          zero_debias: true
        }
        version { incarnation: 7 epoch: 3 step: 1200 }
        steps_committed: 1200
        next: 1201
        durable: 1200
        total_weight: 0.999
        shape: 65
        shape: 128
        state_bytes: 33280
        towers { tower: 0 claimed: true received_through: 1200 }
        towers { tower: 1 }
        registrations {
          operator {
            matpower {
              exponent: -0.5
              damping { name: "global" }
            }
          }
          policy { kind: REFRESH_KIND_EVERY_N_STEPS steps: 10 }
          computed_from { incarnation: 7 epoch: 3 step: 1190 }
          damping: 0.001
        }
      )pb",
      &factor));
  return factor;
}

TEST(RenderTest, FactorsAreATable) {
  EXPECT_EQ(
      FactorTable({Factor()}),
      "NAME   KIND                      SHAPE      DTYPE    TOWERS  SOURCES  STEPS  STATE\n"
      "mlp/0  fully_connected_diagonal  [65, 128]  FLOAT32       2        1  1,200  32.5 KiB\n");
  EXPECT_THAT(FactorTable({}), HasSubstr("NAME"));
}

TEST(RenderTest, AFactorIsAPage) {
  const std::string page = FactorPage(Factor());
  for (const char* line :
       {"mlp/0: fully_connected_diagonal\n\nshape         [65, 128]\n",
        "towers        2, TOWER_MEAN\n", "zero_debias   on\n",
        "version       step 1200 of incarnation 7, epoch 3\n",
        "1,200 committed, 0 failed; next 1201, durable through 1200\n",
        "TOWER  CLAIMED  RECEIVED THROUGH\n", "    0  yes                 1,200\n",
        "matpower(-0.5, global)  every 10 steps  step 1190"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST(RenderTest, OperatorsHaveTheFieldsNames) {
  EXPECT_EQ(OperatorName(Covariance()), "covariance");
  EXPECT_EQ(OperatorName(Matpower(-1, 0.5)), "matpower(-1, 0.5)");
  EXPECT_EQ(OperatorName(Cholesky("d")), "cholesky(d)");
  EXPECT_EQ(OperatorName(CholeskyInverse(0)), "cholesky_inverse(0)");
}

TEST(RenderTest, JsonHasTheContractsNamesAndEveryField) {
  v1::DampingInfo damping;
  damping.set_name("global");
  EXPECT_EQ(Json(damping), "{\n \"name\": \"global\",\n \"value\": 0\n}\n");
  EXPECT_THAT(Json(Factor()), HasSubstr("\"steps_committed\": \"1200\""));
  EXPECT_THAT(Json(Factor()), HasSubstr("\"steps_failed\": \"0\""));
}

TEST(RenderTest, DampingsAreATable) {
  v1::DampingInfo damping;
  damping.set_name("global");
  damping.set_value(0.001);
  EXPECT_EQ(DampingTable({damping}), "NAME    VALUE\nglobal  0.001\n");
}

class ReadingTest : public testing::Test {
 protected:
  ReadingTest() {
    info_.set_class_name("LinearOperatorDiag");
    info_.mutable_version()->set_step(3);
    info_.set_damping(0.5);
  }
  const Matrix<float> m_{{1, 2, 3}, {0, -4, 4}};
  const Summary summary_ = Summarize<float>(Eigen::Map<const Matrix<float>>(m_.data(), 2, 3));
  v1::OperatorInfo info_;
};

TEST_F(ReadingTest, IsSummarized) {
  EXPECT_EQ(summary_.rows, 2);
  EXPECT_EQ(summary_.cols, 3);
  EXPECT_EQ(summary_.min, -4);
  EXPECT_EQ(summary_.max, 4);
  EXPECT_EQ(summary_.mean, 1);
  EXPECT_EQ(summary_.zeros, 1);
}

TEST_F(ReadingTest, IsAPageWithACorner) {
  const std::string page =
      ReadingPage("f covariance", info_, summary_, m_.cast<double>().topLeftCorner(2, 2));
  for (const char* line : {"f covariance: LinearOperatorDiag\n\nshape", "[2, 3], 6 elements\n",
                           "damping       0.5\n", "minimum       -4\n", "zeros         1\n",
                           "\n     [:, 0]  [:, 1]\n[0]       1       2\n[1]       0      -4\n"}) {
    EXPECT_THAT(page, HasSubstr(line));
  }
}

TEST_F(ReadingTest, IsJson) {
  const std::string json = ReadingJson(info_, summary_, "a \"b\".npy");
  EXPECT_THAT(json, testing::StartsWith("{\"operator\":{\"class_name\":\"LinearOperatorDiag\""));
  EXPECT_THAT(json, testing::EndsWith("\"shape\":[2,3],\"min\":-4,\"max\":4,\"mean\":1,\"zeros\":1,"
                                      "\"output\":\"a \\\"b\\\".npy\"}\n"));
  EXPECT_THAT(ReadingJson(info_, summary_, ""), testing::EndsWith("\"zeros\":1}\n"));
}

TEST(RenderTest, AnEventIsALine) {
  v1::FactorEvent event;
  event.set_kind(v1::FACTOR_EVENT_KIND_STEP_ENDED);
  event.set_factor("mlp/0");
  event.mutable_version()->set_incarnation(7);
  event.mutable_version()->set_epoch(3);
  event.mutable_version()->set_step(6);
  event.set_next(8);
  event.set_durable(7);
  event.set_towers(4);
  event.set_step(7);
  event.set_outcome(v1::STEP_OUTCOME_PARTIAL);
  event.set_towers_counted(2);
  event.set_label(90);
  EXPECT_EQ(EventLine(event),
            "STEP_ENDED       mlp/0  step 7: PARTIAL, towers 2, label 90; next 8, durable 7\n");
  event.set_kind(v1::FACTOR_EVENT_KIND_TOWERS_CHANGED);
  EXPECT_EQ(EventLine(event), "TOWERS_CHANGED   mlp/0  towers 4 from step 7; next 8, durable 7\n");
  event.set_kind(v1::FACTOR_EVENT_KIND_SKIPPED);
  EXPECT_EQ(
      EventLine(event),
      "SKIPPED          mlp/0  step 6 of incarnation 7, epoch 3, towers 4; next 8, durable 7\n");
  event.set_kind(v1::FACTOR_EVENT_KIND_DURABLE);
  EXPECT_EQ(EventLine(event), "DURABLE          mlp/0  next 8, durable 7\n");
}

}  // namespace
}  // namespace fisherd::ctl
