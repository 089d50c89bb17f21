#include "server/store/records.h"

#include <gtest/gtest.h>

namespace fisherd::server {
namespace {

core::FactorImage Image() {
  core::FactorImage image = {.name = "f"};
  image.spec.kind = core::FullyConnectedDiagonalSpec{2, 3, true};
  image.spec.towers = 2;
  image.spec.window = 4;
  image.spec.gather_timeout = absl::InfiniteDuration();
  image.spec.durability = core::DurabilityLevel::kSync;
  image.version = {.incarnation = 5, .epoch = 6, .step = 7};
  image.total_weight = 0.1;
  image.bound = 1e30;
  image.label = 99;
  image.plan = core::TowerPlan(std::deque<core::TowerPlan::Change>{{1, 2}, {4, 3}});
  core::Ledger ledger;
  ledger.Record(core::StepOutcome::kWhole);
  ledger.Record(core::StepOutcome::kPartial, {0, 2});
  ledger.Record(core::StepOutcome::kFailed);
  ledger.Remember({9, 9, core::StepOutcome::kFailed});
  image.ledgers = {ledger};
  return image;
}

TEST(RecordsTest, AGenerationIsReadAsItWasWritten) {
  const core::FactorImage image = Image();
  store::v1::Generation record;
  ASSERT_TRUE(record.ParseFromString(ToGeneration(image).SerializeAsString()));
  const auto read = ToImage("f", record);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->spec, image.spec);
  EXPECT_EQ(read->version, image.version);
  EXPECT_EQ(read->total_weight, image.total_weight);
  EXPECT_EQ(read->bound, image.bound);
  EXPECT_EQ(read->label, image.label);
  EXPECT_EQ(read->plan, image.plan);
  ASSERT_EQ(read->ledgers.size(), 1);
  EXPECT_EQ(read->ledgers[0].content(), image.ledgers[0].content());
  EXPECT_EQ(read->ended(), 3);
}

TEST(RecordsTest, ALifeIsTheFactorBeforeItsFirstStep) {
  core::FactorImage image = Image();
  image.results.push_back({{core::OperatorKind::kMatpower, -0.5, "d"}, {}, nullptr});
  const auto read = ToImage("f", ToRecord(image));
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->spec, image.spec);
  EXPECT_EQ(read->plan, image.plan);
  EXPECT_EQ(read->version.incarnation, 5);
  EXPECT_EQ(read->version.step, 0);
  EXPECT_EQ(read->ended(), 0);
  ASSERT_EQ(read->results.size(), 1);
  EXPECT_EQ(read->results[0].op, image.results[0].op);
}

TEST(RecordsTest, WhatCannotHaveBeenWrittenIsDamage) {
  const auto code = [](const auto& record) { return ToImage("f", record).status().code(); };
  EXPECT_EQ(code(store::v1::Factor()), absl::StatusCode::kDataLoss);
  store::v1::Factor factor = ToRecord(Image());
  factor.mutable_towers(1)->set_from(1);
  EXPECT_EQ(code(factor), absl::StatusCode::kDataLoss);
  factor.mutable_towers(1)->set_from(3);
  factor.mutable_towers(1)->set_towers(0);
  EXPECT_EQ(code(factor), absl::StatusCode::kDataLoss);
  store::v1::Generation generation = ToGeneration(Image());
  generation.clear_ledgers();
  EXPECT_EQ(code(generation), absl::StatusCode::kDataLoss);
}

TEST(RecordsTest, KeysAreInTheOrderOfTheirNumbersAndApartByName) {
  EXPECT_LT(GenerationKey("f", 255), GenerationKey("f", 256));
  EXPECT_LT(LogKey("f", 1, 300), LogKey("f", 2, 0));
  EXPECT_LT(OutcomeKey("f", 1, 0, 1 << 20), OutcomeKey("f", 1, 1, 0));
  for (const std::string name : {"f", "f/a", "g"}) {
    const KeyRange keys = KeysOf('g', name);
    for (const std::string other : {"f", "f/a", "g", "f/"}) {
      const std::string key = GenerationKey(other, 77);
      EXPECT_EQ(keys.first <= key && key < keys.last, name == other) << name << " " << other;
    }
  }
  const std::string key = GenerationKey("f/a", 0x0102);
  const ParsedKey parsed = ParseKey(std::string_view(key).substr(1));
  EXPECT_EQ(parsed.name, "f/a");
  EXPECT_EQ(BigEndian(parsed.rest), 0x0102);
}

}  // namespace
}  // namespace fisherd::server
