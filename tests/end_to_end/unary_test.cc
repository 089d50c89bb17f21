// The unary calls' happy paths, and listings while others create.

#include <atomic>
#include <set>
#include <thread>

#include "absl/strings/str_cat.h"
#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

using Stub = v1::FactorService::Stub;

class UnaryTest : public ServerTest {
 protected:
  // All names, a page at a time.
  std::vector<std::string> ListAll(const std::string& prefix, int page_size) {
    std::vector<std::string> names;
    v1::ListFactorsRequest request;
    request.set_prefix(prefix);
    request.set_page_size(page_size);
    do {
      v1::ListFactorsResponse page;
      EXPECT_TRUE(Call(&Stub::ListFactors, request, &page).ok());
      EXPECT_LE(page.factors_size(), page_size);
      for (const v1::FactorInfo& factor : page.factors()) names.push_back(factor.name());
      request.set_page_token(page.next_page_token());
    } while (!request.page_token().empty());
    return names;
  }
};

TEST_P(UnaryTest, CreateFillsInEveryDefault) {
  const v1::FactorInfo factor = Create("mlp/0", LayerSpec(3, 2, true, 0));
  EXPECT_EQ(factor.name(), "mlp/0");
  EXPECT_EQ(factor.spec().towers(), 1);
  EXPECT_EQ(factor.spec().sources(), 1);
  EXPECT_EQ(factor.spec().dtype(), v1::DATA_TYPE_FLOAT32);
  EXPECT_EQ(factor.spec().tower_weighting(), v1::TOWER_WEIGHTING_TOWER_MEAN);
  EXPECT_TRUE(factor.spec().zero_debias());
  EXPECT_GT(factor.version().incarnation(), 0);
  EXPECT_GT(factor.version().epoch(), 0);
  EXPECT_EQ(factor.version().step(), 0);
  EXPECT_EQ(factor.next(), 1);
  EXPECT_EQ(factor.durable(), 0);
  EXPECT_THAT(factor.shape(), testing::ElementsAre(4, 2));
  EXPECT_EQ(factor.state_bytes(), 32);
  EXPECT_EQ(factor.estimated_bytes(), 64);
  EXPECT_EQ(factor.towers_size(), 1);
  EXPECT_EQ(Describe("mlp/0").SerializeAsString(), factor.SerializeAsString());
}

TEST_P(UnaryTest, DescribeFollowsTheSteps) {
  const v1::FactorInfo factor = Create("f", LayerSpec(2, 2));
  Trainer trainer(stub(), 1);
  const v1::Progress opened = trainer.Claim("f");
  EXPECT_EQ(opened.factor(), "f");
  EXPECT_EQ(opened.incarnation(), factor.version().incarnation());
  EXPECT_EQ(opened.epoch(), factor.version().epoch());
  EXPECT_EQ(opened.towers(), 1);
  EXPECT_EQ(opened.next(), 1);
  EXPECT_EQ(opened.durable(), 0);
  EXPECT_EQ(opened.window(), 4);
  EXPECT_TRUE(Describe("f").towers(0).claimed());

  Batch batch = GoldenBatch(factor);
  batch.header.set_label(4711);
  trainer.Send(batch);
  const v1::Progress ack = trainer.AwaitNext("f", 2);
  EXPECT_EQ(ack.durable(), 1);
  EXPECT_EQ(ack.missed_size(), 0);
  const v1::FactorInfo after = Describe("f");
  EXPECT_EQ(after.version().step(), 1);
  EXPECT_EQ(after.steps_committed(), 1);
  EXPECT_EQ(after.steps_failed(), 0);
  EXPECT_EQ(after.next(), 2);
  EXPECT_EQ(after.total_weight(), 0.5);
  EXPECT_EQ(after.label(), 4711);
  EXPECT_EQ(after.held_batches(), 0);
  EXPECT_EQ(after.held_bytes(), 0);

  EXPECT_TRUE(trainer.Finish().ok());
  EXPECT_FALSE(Describe("f").towers(0).claimed());
}

TEST_P(UnaryTest, ResetGoesBackAndDeleteGoesAway) {
  const v1::FactorInfo before = CreateGolden("f");
  v1::ResetFactorRequest reset;
  reset.set_name("f");
  v1::ResetFactorResponse response;
  ASSERT_TRUE(Call(&Stub::ResetFactor, reset, &response).ok());
  EXPECT_GT(response.factor().version().incarnation(), before.version().incarnation());
  EXPECT_EQ(response.factor().steps_committed(), 0);
  EXPECT_EQ(response.factor().next(), 1);
  EXPECT_EQ(response.factor().total_weight(), 0);
  EXPECT_EQ(ReadAll(stub(), ReadOf("f")).tensors[0], Values(6, 0));

  v1::DeleteFactorRequest remove;
  remove.set_name("f");
  v1::DeleteFactorResponse removed;
  ASSERT_TRUE(Call(&Stub::DeleteFactor, remove, &removed).ok());
  EXPECT_TRUE(ListAll("", 10).empty());
  // The name is free again, for another specification too.
  EXPECT_GT(Create("f", LayerSpec(5, 5)).version().incarnation(),
            response.factor().version().incarnation());
}

TEST_P(UnaryTest, RegisteredResultsAreServedFromTheirCache) {
  CreateGolden("f");
  SetDamping("global", 0.5);
  v1::RegisterRequest request;
  request.set_factor("f");
  *request.mutable_operator_() = Matpower(-1, "global");
  request.mutable_policy()->set_kind(v1::REFRESH_KIND_ON_REQUEST);
  v1::RegisterResponse registered;
  ASSERT_TRUE(Call(&Stub::Register, request, &registered).ok());
  EXPECT_FALSE(registered.registration().has_computed_from());

  v1::UpdateInversesRequest update;
  v1::UpdateInversesResponse updated;
  ASSERT_TRUE(Call(&Stub::UpdateInverses, update, &updated).ok());
  EXPECT_EQ(updated.updated(), 1);
  const v1::FactorInfo factor = Describe("f");
  ASSERT_EQ(factor.registrations_size(), 1);
  EXPECT_EQ(factor.registrations(0).computed_from().step(), 1);
  EXPECT_EQ(factor.registrations(0).damping(), 0.5);
  EXPECT_EQ(factor.result_bytes(), 24);

  // ON_REQUEST: neither a new λ nor a new step changes what is served.
  SetDamping("global", 100);
  const ReadAnswer cached = ReadAll(stub(), ReadOf("f", Matpower(-1, "global")));
  ASSERT_TRUE(cached.status.ok()) << cached.status.error_message();
  EXPECT_TRUE(cached.header.operator_().cached());
  EXPECT_EQ(cached.header.operator_().damping(), 0.5);
  EXPECT_FLOAT_EQ(cached.tensors[0][0], 1 / 19.);
  update.set_factor("f");
  ASSERT_TRUE(Call(&Stub::UpdateInverses, update, &updated).ok());
  const ReadAnswer fresh = ReadAll(stub(), ReadOf("f", Matpower(-1, "global")));
  EXPECT_EQ(fresh.header.operator_().damping(), 100);
  EXPECT_FLOAT_EQ(fresh.tensors[0][0], 1 / 118.5);

  v1::UnregisterRequest unregister;
  unregister.set_factor("f");
  *unregister.mutable_operator_() = Matpower(-1, "global");
  v1::UnregisterResponse unregistered;
  ASSERT_TRUE(Call(&Stub::Unregister, unregister, &unregistered).ok());
  EXPECT_FALSE(ReadAll(stub(), ReadOf("f", Matpower(-1, "global"))).header.operator_().cached());
}

TEST_P(UnaryTest, DampingsAreListedInPages) {
  for (const char* name : {"b", "a/2", "a/1"}) SetDamping(name, 1);
  v1::ListDampingsRequest request;
  request.set_prefix("a/");
  request.set_page_size(1);
  v1::ListDampingsResponse page;
  ASSERT_TRUE(Call(&Stub::ListDampings, request, &page).ok());
  ASSERT_EQ(page.dampings_size(), 1);
  EXPECT_EQ(page.dampings(0).name(), "a/1");
  request.set_page_token(page.next_page_token());
  ASSERT_TRUE(Call(&Stub::ListDampings, request, &page).ok());
  EXPECT_EQ(page.dampings(0).name(), "a/2");
  EXPECT_EQ(page.next_page_token(), "");

  v1::DeleteDampingRequest remove;
  remove.set_name("b");
  v1::DeleteDampingResponse removed;
  EXPECT_TRUE(Call(&Stub::DeleteDamping, remove, &removed).ok());
  ASSERT_TRUE(Call(&Stub::ListDampings, v1::ListDampingsRequest(), &page).ok());
  EXPECT_EQ(page.dampings_size(), 2);
}

TEST_P(UnaryTest, AFactorThatStaysIsListedOnceWhateverComesAndGoes) {
  std::set<std::string> staying;
  for (int i = 0; i < 50; ++i) {
    staying.insert(absl::StrCat("stay/", i));
    Create(absl::StrCat("stay/", i), LayerSpec(1, 1));
  }
  std::atomic<bool> done = false;
  std::thread others([&] {
    for (int i = 0; !done; ++i) {
      const std::string name = absl::StrCat("stay/", i % 60, "/passing");
      Create(name, LayerSpec(1, 1));
      v1::DeleteFactorRequest request;
      request.set_name(name);
      v1::DeleteFactorResponse response;
      EXPECT_TRUE(Call(&Stub::DeleteFactor, request, &response).ok());
    }
  });
  for (int round = 0; round < 5; ++round) {
    std::vector<std::string> listed = ListAll("stay/", 7);
    EXPECT_TRUE(std::is_sorted(listed.begin(), listed.end()));
    std::erase_if(listed, [&](const std::string& name) { return !staying.contains(name); });
    EXPECT_THAT(listed, testing::ElementsAreArray(staying));
  }
  done = true;
  others.join();
}

FISHERD_ON_EVERY_TRANSPORT(UnaryTest);

}  // namespace
}  // namespace fisherd::server
