// The step protocol as a model to be explored: the real StepGather, Ledger, RoomQueue and
// ReplayBuffer, composed as the factor, the session and the client's stream compose them.
//
// One event is what happens under one lock, or one message that is sent, taken or heard. Messages
// are first in, first out on each stream, and lost when it is cut. Time does not pass: a timer
// rings when the adversary says so. Of a batch there are no elements, but two halves.
//
// What is left out loses nothing. An answer is heard at the moment when the server hands it over:
// what a client does while one is on its way, it might have done before. Both ends learn of a cut
// at once: what one does before it knows, it might have done before the cut. After the last crash
// nobody need hear of a step that is durable before all have ended, as then nothing that is freed
// is missed; and after the end nobody is struck.

#ifndef FISHERD_TESTS_MODEL_PROTOCOL_MODEL_H_
#define FISHERD_TESTS_MODEL_PROTOCOL_MODEL_H_

#include <cstdint>
#include <string>
#include <vector>

#include "core/factor_spec.h"
#include "tests/model/protocol_state.h"

namespace fisherd::model {

// What is broken on purpose.
enum class Mutant {
  kNone,
  kNoOutcomeRecord,         // a rollback takes the outcomes of steps with it
  kNoRecoveryRule,          // recorded steps end by whoever came
  kFreeAtCommit,            // the client frees what has counted, durable or not
  kVerdictsKeptOverEpochs,  // the client thinks that what has counted has counted
  kLedgerApartFromState,    // a rollback takes the ledger, but not the state
  kAssemblyByIdentity,      // a stream's batch goes on where one that was cut has ended
  kNoReservation,           // an open step takes room as its batches come
};

struct Config {
  int factors = 1;
  int towers = 2;       // of every factor,
  int most_towers = 2;  // and what the adversary may make of them; a client for each,
  int rivals = 0;       // and as many more for the first ones, who may take over
  int steps = 2;
  int window = 2;
  int64_t budget = 2;
  int64_t (*bytes)(int factor, int step, int tower) = [](int, int, int) -> int64_t { return 1; };
  core::GatherPolicy policy = core::GatherPolicy::kFail;
  bool asynchronous = false;
  bool two_halves = true;  // a batch comes by two events: else by one
  // A batch is sent as soon as it may be. Loses nothing if there is one factor and room for all its
  // steps: whether it waits with the client or on its way is then the same.
  bool send_at_once = false;
  // Towers are alike, so that only the first need be struck by cuts.
  bool alike = false;
  // Each trainer goes through all factors step by step: even ones upwards, odd ones downwards.
  // Else in any order.
  bool in_turn = false;
  bool opened = false;        // in the beginning by all: else nobody is connected
  bool late_notices = false;  // sessions hear of their factors some time later: else at once
  Adversity adversity;
  Mutant mutant = Mutant::kNone;
};

struct Event {
  enum class Kind : uint8_t {
    kConnect,    // a: client
    kPush,       // a: client, b: factor
    kSend,       // a: client, b: factor
    kReceive,    // a: client; the server takes its next message
    kHear,       // a: client, b: factor whose acknowledgement is taken, or −1
    kReopen,     // a: client, b: factor
    kRevive,     // a: client
    kTakeStep,   // a: factor, b: lane
    kPublish,    // a: factor
    kDurable,    // a: factor
    kOnRoom,     // a: factor
    kNotice,     // a: which
    kExpire,     // a: factor, b: lane
    kCut,        // a: client
    kCrash,      // a: which images, b: whether outcomes are on record, see Restart
    kDie,        // a: client
    kDrop,       // a: client, b: factor
    kReset,      // a: factor
    kSetTowers,  // a: factor, b: towers, c: now
    kTakeOver,   // a: client
  };
  Kind kind = Kind::kConnect;
  int8_t a = 0;
  int8_t b = 0;
  int8_t c = 0;
};

class ProtocolModel {
 public:
  using State = model::State;
  using Event = model::Event;

  explicit ProtocolModel(const Config& config) : config_(config) {}

  State Initial() const;
  void Events(const State& state, std::vector<Event>* events) const;
  void Apply(State* state, const Event& event) const;
  uint64_t Hash(const State& state) const { return state.hash(); }
  std::string Check(const State& state) const;
  // All steps have ended, and the clients keep nothing.
  bool IsGoal(const State& state) const;
  std::string Describe(const Event& event) const;

 private:
  // All its steps have.
  bool HasEnded(const Factor& factor) const;
  bool MayPush(const Client& client, int number, int factor) const;
  void ClientEvents(const State& state, std::vector<Event>* events) const;
  void FactorEvents(const State& state, std::vector<Event>* events) const;
  void AdverseEvents(const State& state, std::vector<Event>* events) const;
  void Strike(State* state, const Event& event) const;
  std::string CheckFactor(const State& state, int factor) const;
  std::string CheckRoom(const State& state) const;
  std::string CheckClient(const State& state, int client) const;

  const Config config_;
};

}  // namespace fisherd::model

#endif  // FISHERD_TESTS_MODEL_PROTOCOL_MODEL_H_
