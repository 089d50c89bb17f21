// The server of the protocol model: what core::Factor and server::Session do with the step
// protocol, without threads, elements and gRPC.

#ifndef FISHERD_TESTS_MODEL_SERVER_SIDE_H_
#define FISHERD_TESTS_MODEL_SERVER_SIDE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "tests/model/protocol_model.h"
#include "tests/model/protocol_state.h"

namespace fisherd::model {

// Changes `state`; lives as long as one event.
class ServerSide {
 public:
  ServerSide(const Config& config, State& state) : config_(config), state_(state) {}

  static Factor NewFactor(const Config& config, uint8_t incarnation, uint8_t epoch);
  static core::StepGather::Verdict VerdictOf(const Config& config, const Lane& lane);

  // server/session.cc
  void Receive(int client);
  // The next answer, or the acknowledgement of a factor.
  Answer TakeAnswer(int client, int factor);
  void CloseSession(int client);

  // core/factor_commit.cc
  void TakeStep(int factor, int lane);
  void Publish(int factor);
  void BecomeDurable(int factor);
  void Expire(int factor, int lane);

  // core/factor_update.cc and core/factor.cc
  void OnRoom(int factor);
  void DeliverNotice(size_t which);
  void SetTowers(int factor, int towers, bool now);
  void Reset(int factor);
  // With the images that `choice` tells: its digits in the bases of their numbers. `recorded`:
  // outcomes of steps that were ending have come on record before.
  void Restart(int choice, bool recorded);

 private:
  class FactorRoom;

  Factor& EditFactor(int factor) { return state_.factors[factor].Edit(); }
  Lane& LaneOf(Factor& factor, int tower) const {
    return factor.lanes[config_.asynchronous ? tower : 0];
  }
  int IndexOf(int tower) const { return config_.asynchronous ? 0 : tower; }
  int TowersOf(const Factor& factor) const;
  Incoming& BatchOf(Lane& lane, int step, int index) const {
    return lane.batches[(step - 1) * config_.most_towers + index];
  }
  int64_t BytesOf(int factor, int step, int tower) const {
    return config_.bytes(factor, step, tower);
  }

  // Session
  void Open(int client, const Request& request);
  void BeginBatch(int client, const Request& request);
  void EndBatch(int client);
  void Refuse(int client, int factor, int step, std::string_view reason);
  void Hold(int client, int factor, int step);

  // Factor
  ReplayBuffer::Progress ProgressOf(const Factor& factor, int tower, int64_t missed_from) const;
  std::string Claim(int client, const Request& request);
  std::string Begin(int client, const Request& request, Session::Arriving& arriving, bool& on_hold);
  std::string Complete(int client, const Session::Arriving& arriving);
  void Abandon(int client);
  std::string DidNotCount(const Lane& lane, int step) const;
  void Drop(int factor, int lane, int step, int index);
  void Look(Factor& factor, int lane) const;
  void ApplyHolds(int factor, int lane, const std::vector<core::StepGather::Hold>& holds);
  void OpenWaitingSteps(int factor);
  void NotifyAll(int factor);
  void Tell(const Notice& notice);
  void CheckTold(const Factor& factor, const Ending& ending);
  void RestoreFactor(Factor& factor, const Image& image, bool recorded);

  const Config& config_;
  State& state_;
};

// The room of one factor's steps. See core/factor_room.h and core/byte_budget.cc.
class ServerSide::FactorRoom final : public core::StepRoom {
 public:
  FactorRoom(const Config& config, State& state, int factor)
      : config_(config), state_(state), factor_(factor) {}

  int64_t limit() const override { return config_.budget; }
  bool Take(int64_t bytes) override;
  bool TakeInTurn(int64_t bytes) override;
  void Leave() override;
  void GiveBack(int64_t bytes) override;

 private:
  bool reserves() const { return config_.mutant != Mutant::kNoReservation; }
  void TellFirst();

  const Config& config_;
  State& state_;
  const int factor_;
};

}  // namespace fisherd::model

#endif  // FISHERD_TESTS_MODEL_SERVER_SIDE_H_
