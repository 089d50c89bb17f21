// How steps end, and what a rollback leaves.

#include <algorithm>
#include <utility>

#include "tests/model/server_side.h"

namespace fisherd::model {

using core::StepGather;
using core::StepOutcome;

StepGather::Verdict ServerSide::VerdictOf(const Config& config, const Lane& lane) {
  const int64_t next = lane.gather.next();
  const core::StepRun* recorded = lane.ledger.Find(next);
  if (config.mutant == Mutant::kNoRecoveryRule && recorded != nullptr &&
      recorded->outcome == StepOutcome::kPartial && !lane.gather.WholeTowers().empty()) {
    return StepGather::Verdict::kPartial;
  }
  return lane.gather.Decide(config.policy, lane.expired == next, recorded);
}

void ServerSide::Look(Factor& factor, int lane) const {
  Lane& l = factor.lanes[lane];
  if (l.gather.committing() || VerdictOf(config_, l) == StepGather::Verdict::kWait) return;
  l.look = true;
}

void ServerSide::TakeStep(int number, int index) {
  Factor& factor = EditFactor(number);
  Lane& lane = factor.lanes[index];
  lane.look = false;
  const auto verdict = VerdictOf(config_, lane);
  if (verdict == StepGather::Verdict::kWait) return;
  Ending ending{.lane = static_cast<int8_t>(index),
                .step = static_cast<int8_t>(lane.gather.next()),
                .incarnation = factor.incarnation,
                .counted = {},
                .batches = {}};
  if (verdict != StepGather::Verdict::kFailed) {
    const core::StepRun* recorded = lane.ledger.Find(ending.step);
    const bool again = recorded != nullptr && lane.expired != ending.step &&
                       verdict == StepGather::Verdict::kPartial &&
                       config_.mutant != Mutant::kNoRecoveryRule;
    ending.counted = again ? recorded->counted : lane.gather.WholeTowers();
    ending.outcome =
        verdict == StepGather::Verdict::kWhole ? StepOutcome::kWhole : StepOutcome::kPartial;
  }
  for (const int tower : ending.counted) {
    const Incoming& batch = BatchOf(lane, ending.step, tower);
    if (batch.ticket == 0) state_.violation = "a batch that is to count is not there";
    if (batch.halves != 2) state_.violation = "a batch that is to count is not its two halves";
    ending.batches.push_back(batch);
  }
  for (int i = 0; i < config_.most_towers; ++i) {
    Incoming& batch = BatchOf(lane, ending.step, i);
    if (config_.mutant == Mutant::kNoReservation) {
      state_.room.Edit().queue.GiveBack(batch.bytes);
    }
    batch = {};
  }
  lane.gather.BeginEnd();
  factor.ending = std::move(ending);
}

// A step that somebody may have been told not to be whole ends so again, unless its time is over or
// a tower that counted can send it no more.
void ServerSide::CheckTold(const Factor& factor, const Ending& ending) {
  const Lane& lane = factor.lanes[ending.lane];
  for (const Told& told : lane.told) {
    if (told.step != ending.step || lane.expired == ending.step) continue;
    const bool lost = std::any_of(told.counted.begin(), told.counted.end(), [&](int index) {
      return factor.from[config_.asynchronous ? ending.lane : index] > ending.step;
    });
    if (!lost && (told.outcome != ending.outcome || told.counted != ending.counted)) {
      state_.violation = "a step that was told to have ended one way has ended another";
    }
  }
}

void ServerSide::Publish(int number) {
  Factor& factor = EditFactor(number);
  const Ending ending = *std::exchange(factor.ending, std::nullopt);
  if (ending.incarnation != factor.incarnation) return;
  Lane& lane = factor.lanes[ending.lane];
  CheckTold(factor, ending);
  FactorRoom room(config_, state_, number);
  lane.gather.EndStep(room);
  lane.ledger.Record(ending.outcome, ending.counted);
  if (lane.ledger.next() != ending.step + 1 || lane.gather.next() != ending.step + 1) {
    state_.violation = "steps do not end in order";
  }
  std::erase_if(lane.told, [&](const Told& told) { return told.step == ending.step; });
  if (ending.outcome != StepOutcome::kWhole) {
    lane.told.push_back({ending.step, ending.outcome, ending.counted});
    std::sort(lane.told.begin(), lane.told.end(),
              [](const Told& a, const Told& b) { return a.step < b.step; });
  }
  for (const int index : ending.counted) {
    const int tower = config_.asynchronous ? ending.lane : index;
    ++factor.state[tower * config_.steps + ending.step - 1];
  }
  if (ending.outcome != StepOutcome::kFailed) {
    factor.version_step =
        config_.asynchronous ? static_cast<int8_t>(factor.version_step + 1) : ending.step;
    factor.version_epoch = state_.epoch;
    for (const Image& image : factor.images) {
      if (image.version_step == factor.version_step && image.version_epoch == state_.epoch) {
        state_.violation = "one version's name has been given twice";
      }
    }
  }
  Image image{.next = {},
              .version_step = factor.version_step,
              .version_epoch = factor.version_epoch,
              .state = factor.state};
  for (const Lane& l : factor.lanes) image.next.push_back(static_cast<int8_t>(l.ledger.next()));
  factor.images.push_back(std::move(image));
  OpenWaitingSteps(number);
  Look(factor, ending.lane);
  NotifyAll(number);
}

void ServerSide::BecomeDurable(int number) {
  Factor& factor = EditFactor(number);
  factor.images.erase(factor.images.begin(), factor.images.end() - 1);
  const auto& next = factor.images[0].next;
  for (size_t i = 0; i < next.size(); ++i) factor.lanes[i].durable = next[i] - 1;
  NotifyAll(number);
}

void ServerSide::Expire(int number, int index) {
  Factor& factor = EditFactor(number);
  Lane& lane = factor.lanes[index];
  if (lane.gather.ClockRuns()) {
    lane.expired = lane.gather.next();
    Look(factor, index);
  } else {
    FactorRoom room(config_, state_, number);
    lane.gather.CloseEmpty(room);
    NotifyAll(number);
  }
  OpenWaitingSteps(number);
}

void ServerSide::Reset(int number) {
  NotifyAll(number);
  Factor& factor = EditFactor(number);
  FactorRoom room(config_, state_, number);
  for (size_t l = 0; l < factor.lanes.size(); ++l) {
    factor.lanes[l].gather.CloseAll(room);
    for (int s = 1; s <= config_.steps; ++s) {
      for (int i = 0; i < config_.most_towers; ++i) Drop(number, static_cast<int>(l), s, i);
    }
  }
  const std::optional<Ending> under_way = factor.ending;
  const bool room_scheduled = factor.room_scheduled;
  factor = NewFactor(config_, ++state_.incarnations, state_.epoch);
  factor.ending = under_way;
  factor.room_scheduled = room_scheduled;
}

// ---- Restart

void ServerSide::RestoreFactor(Factor& factor, const Image& image, bool recorded) {
  if (recorded && factor.ending.has_value() && factor.ending->outcome != StepOutcome::kWhole &&
      factor.ending->incarnation == factor.incarnation) {
    const Ending& ending = *factor.ending;
    factor.lanes[ending.lane].ledger.Record(ending.outcome, ending.counted);
  }
  core::TowerPlan plan(config_.asynchronous ? 1 : config_.towers);
  for (const auto& [from, towers] : factor.tower_changes) plan.Set(from, towers);
  for (size_t l = 0; l < factor.lanes.size(); ++l) {
    const int64_t next = l < image.next.size() ? image.next[l] : 1;
    Lane& lane = factor.lanes[l];
    if (config_.mutant == Mutant::kNoOutcomeRecord) {
      core::Ledger kept;
      while (kept.next() < next) {
        const core::StepRun* run = lane.ledger.Find(kept.next());
        run == nullptr ? kept.Record(StepOutcome::kWhole) : kept.Record(run->outcome, run->counted);
      }
      lane.ledger = kept;
    } else {
      lane.ledger.RollBack(next);
    }
    lane.gather = StepGather(plan, config_.window, next);
    lane.durable = next - 1;
    lane.expired = 0;
    lane.look = false;
    lane.batches.assign(lane.batches.size(), {});
  }
  factor.ending.reset();
  factor.room_scheduled = false;
  factor.known.assign(factor.known.size(), 0);
  factor.streams.assign(factor.streams.size(), -1);
  factor.from.assign(factor.from.size(), -1);
  factor.version_step = image.version_step;
  factor.version_epoch = image.version_epoch;
  if (config_.mutant != Mutant::kLedgerApartFromState) factor.state = image.state;
  factor.images = {image};
}

void ServerSide::Restart(int choice, bool recorded) {
  ++state_.epoch;
  state_.room = Shared<Room>(Room{core::RoomQueue<int>(config_.budget)});
  state_.notices.clear();
  for (auto& shared : state_.factors) {
    Factor& factor = shared.Edit();
    const int count = static_cast<int>(factor.images.size());
    const Image image = factor.images[choice % count];
    choice /= count;
    RestoreFactor(factor, image, recorded);
  }
  for (auto& client : state_.clients) client.Edit().session = {};
}

}  // namespace fisherd::model
