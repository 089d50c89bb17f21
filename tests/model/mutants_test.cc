// What the model is worth: each simpler rule is found out.

#include "tests/model/runs.h"

namespace fisherd::model {
namespace {

void ExpectCaught(Mutant mutant, Config config) {
  config.mutant = mutant;
  const Exploration result = Explore(config);
  EXPECT_NE(result.violation, "");
}

Config Replay() {
  return {.policy = core::GatherPolicy::kPartial,
          .two_halves = false,
          .send_at_once = true,
          .opened = true,
          .adversity = {.crashes = 1, .timeouts = 1}};
}

TEST(Mutants, NoOutcomeRecord) { ExpectCaught(Mutant::kNoOutcomeRecord, Replay()); }

TEST(Mutants, NoRecoveryRule) { ExpectCaught(Mutant::kNoRecoveryRule, Replay()); }

TEST(Mutants, FreeAtCommit) { ExpectCaught(Mutant::kFreeAtCommit, Replay()); }

TEST(Mutants, VerdictsKeptOverEpochs) { ExpectCaught(Mutant::kVerdictsKeptOverEpochs, Replay()); }

TEST(Mutants, LedgerApartFromState) { ExpectCaught(Mutant::kLedgerApartFromState, Replay()); }

TEST(Mutants, AssemblyByIdentity) {
  Config config = Replay();
  config.two_halves = true;
  config.adversity = {.cuts = 1};
  ExpectCaught(Mutant::kAssemblyByIdentity, config);
}

TEST(Mutants, NoReservation) {
  ExpectCaught(Mutant::kNoReservation, {.factors = 2,
                                        .steps = 1,
                                        .budget = 2,
                                        .two_halves = false,
                                        .send_at_once = true,
                                        .in_turn = true,
                                        .opened = true});
}

}  // namespace
}  // namespace fisherd::model
