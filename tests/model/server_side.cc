#include "tests/model/server_side.h"

#include <algorithm>
#include <string_view>
#include <utility>

#include "core/error.h"

namespace fisherd::model {
namespace {

namespace reason = core::reason;
using core::StepGather;
using core::StepOutcome;

std::string ReasonOf(const absl::Status& status) { return core::GetErrorDetails(status)->reason; }

}  // namespace

// ---- Room

void ServerSide::FactorRoom::TellFirst() {
  const auto first = state_.room->queue.Ready();
  if (first.has_value() && !state_.factors[*first]->room_scheduled) {
    state_.factors[*first].Edit().room_scheduled = true;
  }
}

bool ServerSide::FactorRoom::Take(int64_t bytes) {
  return !reserves() || state_.room.Edit().queue.Take(bytes);
}

bool ServerSide::FactorRoom::TakeInTurn(int64_t bytes) {
  if (!reserves()) return true;
  if (!state_.room.Edit().queue.TakeInTurn(factor_, bytes)) return false;
  TellFirst();
  return true;
}

void ServerSide::FactorRoom::Leave() {
  if (!reserves() || state_.room->queue.waiting().empty()) return;
  state_.room.Edit().queue.Leave(factor_);
  TellFirst();
}

void ServerSide::FactorRoom::GiveBack(int64_t bytes) {
  if (!reserves() || bytes == 0) return;
  state_.room.Edit().queue.GiveBack(bytes);
  TellFirst();
}

// ---- Session

void ServerSide::Receive(int client) {
  Client& c = state_.clients[client].Edit();
  if (c.session.arriving.has_value()) {
    c.requests.erase(c.requests.begin());
    return EndBatch(client);
  }
  const Request request = c.requests.front();
  if (request.step == 0) {
    c.requests.erase(c.requests.begin());
    return Open(client, request);
  }
  BeginBatch(client, request);  // the message stays until its second half is taken
  if (config_.two_halves) return;
  c.requests.erase(c.requests.begin());
  EndBatch(client);
}

void ServerSide::Refuse(int client, int factor, int step, std::string_view reason) {
  Answer answer{.kind = Answer::Kind::kRefused, .reason = std::string(reason)};
  answer.factor = static_cast<int8_t>(factor);
  answer.step = static_cast<int8_t>(step);
  state_.clients[client].Edit().session.answers.push_back(std::move(answer));
}

void ServerSide::Hold(int client, int factor, int step) {
  Session& session = state_.clients[client].Edit().session;
  if (!session.towers[factor].open) return;
  Answer answer{.kind = Answer::Kind::kHold, .reason = {}};
  answer.factor = static_cast<int8_t>(factor);
  answer.step = static_cast<int8_t>(step);
  session.answers.push_back(std::move(answer));
  session.towers[factor].ack_pending = true;
}

void ServerSide::Open(int client, const Request& request) {
  Client& c = state_.clients[client].Edit();
  Session::Tower before = std::exchange(c.session.towers[request.factor], {});
  if (const std::string why = Claim(client, request); !why.empty()) {
    Refuse(client, request.factor, 0, why);
    if (!before.open) return;
    before.ack_pending = true;
    c.session.towers[request.factor] = before;
    return;
  }
  const Factor& factor = *state_.factors[request.factor];
  Answer answer{.kind = Answer::Kind::kOpened,
                .reason = {},
                .progress = ProgressOf(factor, client % config_.most_towers,
                                       std::max<int64_t>(request.from, 1))};
  answer.factor = request.factor;
  c.session.towers[request.factor] = {.open = true,
                                      .incarnation = factor.incarnation,
                                      .told_next = static_cast<int8_t>(answer.progress.next),
                                      .ack_pending = false};
  c.session.answers.push_back(std::move(answer));
}

void ServerSide::BeginBatch(int client, const Request& request) {
  Session::Arriving arriving{.batch = request};
  bool on_hold = false;
  const std::string why = state_.clients[client]->session.towers[request.factor].open
                              ? Begin(client, request, arriving, on_hold)
                              : std::string(reason::kTowerNotOpen);
  arriving.duplicate = why.empty() && arriving.ticket == 0 && !on_hold;
  state_.clients[client].Edit().session.arriving = arriving;
  if (!why.empty()) Refuse(client, request.factor, request.step, why);
  if (on_hold) Hold(client, request.factor, request.step);
}

void ServerSide::EndBatch(int client) {
  Session& session = state_.clients[client].Edit().session;
  const Session::Arriving arriving = *std::exchange(session.arriving, std::nullopt);
  const Request& batch = arriving.batch;
  if (arriving.ticket != 0) {
    const std::string why = Complete(client, arriving);
    if (!why.empty()) Refuse(client, batch.factor, batch.step, why);
  }
  Session::Tower& tower = session.towers[batch.factor];
  if (arriving.duplicate && tower.open) tower.ack_pending = true;
}

Answer ServerSide::TakeAnswer(int client, int factor) {
  Client& c = state_.clients[client].Edit();
  if (factor < 0) {
    Answer next = std::move(c.session.answers.front());
    c.session.answers.erase(c.session.answers.begin());
    return next;
  }
  Session::Tower& tower = c.session.towers[factor];
  const Factor& of = *state_.factors[factor];
  const int number = client % config_.most_towers;
  tower.ack_pending = false;
  Answer answer{.kind = Answer::Kind::kAck,
                .reason = {},
                .progress = ProgressOf(of, number, tower.told_next)};
  answer.factor = static_cast<int8_t>(factor);
  if (of.incarnation != tower.incarnation || of.streams[number] != client) {
    answer.kind = Answer::Kind::kRefused;
    answer.reason = std::string(of.incarnation != tower.incarnation ? reason::kOldIncarnation
                                                                    : reason::kTowerClaimed);
    tower = {};
  } else {
    tower.told_next = static_cast<int8_t>(answer.progress.next);
  }
  return answer;
}

void ServerSide::CloseSession(int client) {
  if (state_.clients[client]->session.arriving.has_value()) Abandon(client);
  state_.clients[client].Edit().session = {};
  for (auto& factor : state_.factors) {
    for (size_t t = 0; t < factor->streams.size(); ++t) {
      if (factor->streams[t] == client) factor.Edit().streams[t] = -1;
    }
  }
  std::erase_if(state_.notices, [&](const Notice& notice) { return notice.client == client; });
}

// ---- Factor: towers

Factor ServerSide::NewFactor(const Config& config, uint8_t incarnation, uint8_t epoch) {
  Factor factor;
  factor.incarnation = incarnation;
  const Lane lane{.gather = StepGather(config.asynchronous ? 1 : config.towers, config.window),
                  .ledger = core::Ledger(),
                  .batches = Few<Incoming, 4>(config.steps * config.most_towers),
                  .told = {}};
  factor.lanes.assign(config.asynchronous ? config.towers : 1, lane);
  factor.known.assign(config.most_towers, 0);
  factor.streams.assign(config.most_towers, -1);
  factor.from.assign(config.most_towers, -1);
  factor.active_towers = static_cast<int8_t>(config.towers);
  factor.state.assign(config.most_towers * config.steps, '\0');
  factor.version_epoch = epoch;
  factor.images = {{.next = Few<int8_t, 4>(factor.lanes.size(), 1),
                    .version_step = 0,
                    .version_epoch = epoch,
                    .state = factor.state}};
  return factor;
}

int ServerSide::TowersOf(const Factor& factor) const {
  if (config_.asynchronous) return factor.active_towers;
  const StepGather& gather = factor.lanes[0].gather;
  return gather.plan().MostFrom(gather.next());
}

ReplayBuffer::Progress ServerSide::ProgressOf(const Factor& factor, int tower,
                                              int64_t missed_from) const {
  ReplayBuffer::Progress progress{.incarnation = factor.incarnation,
                                  .epoch = state_.epoch,
                                  .window = config_.window,
                                  .missed = {}};
  if (config_.asynchronous && tower >= static_cast<int>(factor.lanes.size())) return progress;
  const Lane& lane = factor.lanes[config_.asynchronous ? tower : 0];
  progress.next = lane.gather.next();
  progress.durable = lane.durable;
  progress.open_through = lane.gather.open_through();
  for (const core::StepRun& run : lane.ledger.Missed(missed_from, IndexOf(tower))) {
    progress.missed.push_back({run.first, run.last, run.outcome == StepOutcome::kFailed});
  }
  progress.first =
      tower >= TowersOf(factor) ? 0 : lane.gather.plan().FirstOf(IndexOf(tower), progress.next);
  return progress;
}

std::string ServerSide::Claim(int client, const Request& request) {
  Factor& factor = EditFactor(request.factor);
  const int tower = client % config_.most_towers;
  if (tower >= TowersOf(factor)) return std::string(reason::kOutOfRange);
  const int8_t process = state_.clients[client]->process;
  const bool other = factor.known[tower] != 0 && factor.known[tower] != process;
  if (other && factor.streams[tower] >= 0 && !request.take_over) {
    return std::string(reason::kTowerClaimed);
  }
  const int index = IndexOf(tower);
  const int lane = config_.asynchronous ? tower : 0;
  if (other) {
    factor.lanes[lane].gather.ClearTower(index);
    for (int s = 1; s <= config_.steps; ++s) Drop(request.factor, lane, s, index);
  }
  const int8_t old = std::exchange(factor.streams[tower], static_cast<int8_t>(client));
  factor.known[tower] = process;
  factor.from[tower] = request.from;
  factor.lanes[lane].gather.OpenTower(index, request.from, request.through);
  Look(factor, lane);
  if (old >= 0 && old != client) Tell({.client = old, .factor = request.factor, .hold = 0});
  return "";
}

void ServerSide::SetTowers(int number, int towers, bool now) {
  Factor& factor = EditFactor(number);
  if (config_.asynchronous) {
    factor.active_towers = static_cast<int8_t>(towers);
    while (static_cast<int>(factor.lanes.size()) < towers) {
      factor.lanes.push_back(NewFactor(config_, 0, 0).lanes[0]);
    }
  } else {
    FactorRoom room(config_, state_, number);
    std::vector<StepGather::Hold> holds;
    const int64_t from = factor.lanes[0].gather.SetTowers(towers, now, room, holds);
    factor.tower_changes.emplace_back(static_cast<int8_t>(from), static_cast<int8_t>(towers));
    ApplyHolds(number, 0, holds);
    OpenWaitingSteps(number);
    Look(factor, 0);
  }
  NotifyAll(number);
}

// ---- Factor: batches

std::string ServerSide::DidNotCount(const Lane& lane, int step) const {
  const core::StepRun* run = lane.ledger.Find(step);
  const bool failed = run == nullptr || run->outcome == StepOutcome::kFailed;
  return std::string(failed ? reason::kStepFailed : reason::kStepLate);
}

void ServerSide::Drop(int factor, int lane, int step, int index) {
  Incoming& batch = BatchOf(EditFactor(factor).lanes[lane], step, index);
  if (batch.ticket == 0) return;
  auto& client = state_.clients[batch.client];
  const auto& arriving = client->session.arriving;
  if (arriving.has_value() && arriving->ticket == batch.ticket &&
      arriving->batch.factor == factor && arriving->batch.step == step) {
    client.Edit().session.arriving->live = false;
  }
  batch = {};
}

std::string ServerSide::Begin(int client, const Request& request, Session::Arriving& arriving,
                              bool& on_hold) {
  Factor& factor = EditFactor(request.factor);
  const int tower = client % config_.most_towers;
  if (request.incarnation != factor.incarnation) return std::string(reason::kOldIncarnation);
  if (tower >= TowersOf(factor)) return std::string(reason::kOutOfRange);
  if (factor.streams[tower] != client) return std::string(reason::kTowerNotOpen);
  Lane& lane = LaneOf(factor, tower);
  const int number = static_cast<int>(&lane - factor.lanes.data());
  const int index = IndexOf(tower);
  const core::StepRun* run = lane.ledger.Find(request.step);
  if (run != nullptr && !run->Counted(index) &&
      (config_.mutant != Mutant::kNoRecoveryRule || request.step < lane.ledger.next())) {
    return DidNotCount(lane, request.step);
  }
  if (request.step < lane.ledger.next()) return "";

  Incoming& slot = BatchOf(lane, request.step, index);
  if (config_.mutant == Mutant::kAssemblyByIdentity && slot.ticket != 0 && slot.halves == 1) {
    ++slot.halves;
    arriving.ticket = slot.ticket;
    return "";
  }
  FactorRoom room(config_, state_, request.factor);
  std::vector<StepGather::Hold> holds;
  const int64_t bytes = BytesOf(request.factor, request.step, tower);
  core::Digest digest{static_cast<std::byte>(state_.clients[client]->process),
                      static_cast<std::byte>(request.step)};
  const bool wanted = lane.gather.wants_room();
  const int64_t open_through = lane.gather.open_through();
  const auto answer = lane.gather.Begin({.step = request.step,
                                         .tower = index,
                                         .bytes = bytes,
                                         .parameters = {.decay = 0, .weight = 1},
                                         .digest = digest},
                                        lane.ledger, room, holds);
  ApplyHolds(request.factor, number, holds);
  if (wanted && lane.gather.open_through() > open_through) NotifyAll(request.factor);
  if (!answer.ok()) return ReasonOf(answer.status());
  on_hold = answer->admission == StepGather::Admission::kOnHold;
  if (answer->admission != StepGather::Admission::kAdmitted) return "";
  if (config_.mutant == Mutant::kNoReservation && !state_.room.Edit().queue.Take(bytes)) {
    lane.gather.Abandon(request.step, index, answer->ticket);
    on_hold = true;
    return "";
  }
  arriving.ticket = answer->ticket;
  slot = {.ticket = answer->ticket,
          .client = static_cast<int8_t>(client),
          .halves = 1,
          .bytes = static_cast<int8_t>(bytes)};
  return "";
}

std::string ServerSide::Complete(int client, const Session::Arriving& arriving) {
  const Request& batch = arriving.batch;
  Factor& factor = EditFactor(batch.factor);
  if (batch.incarnation != factor.incarnation) return std::string(reason::kOldIncarnation);
  const int tower = client % config_.most_towers;
  Lane& lane = LaneOf(factor, tower);
  const int index = IndexOf(tower);
  if (lane.gather.Complete(batch.step, index, arriving.ticket)) {
    ++BatchOf(lane, batch.step, index).halves;
    Look(factor, static_cast<int>(&lane - factor.lanes.data()));
    return "";
  }
  if (factor.streams[tower] != client) return std::string(reason::kTowerClaimed);
  return batch.step < lane.gather.next() ? DidNotCount(lane, batch.step) : "";
}

void ServerSide::Abandon(int client) {
  const Session::Arriving arriving = *state_.clients[client]->session.arriving;
  const Request& batch = arriving.batch;
  Factor& factor = EditFactor(batch.factor);
  if (arriving.ticket == 0 || batch.incarnation != factor.incarnation) return;
  if (config_.mutant == Mutant::kAssemblyByIdentity) return;
  const int tower = client % config_.most_towers;
  Lane& lane = LaneOf(factor, tower);
  if (!lane.gather.Abandon(batch.step, IndexOf(tower), arriving.ticket)) return;
  Incoming& slot = BatchOf(lane, batch.step, IndexOf(tower));
  if (config_.mutant == Mutant::kNoReservation) state_.room.Edit().queue.GiveBack(slot.bytes);
  slot = {};
}

// ---- Factor: room and notices

void ServerSide::ApplyHolds(int factor, int lane, const std::vector<StepGather::Hold>& holds) {
  for (const auto& [index, step] : holds) {
    for (int s = static_cast<int>(step); s <= config_.steps; ++s) Drop(factor, lane, s, index);
    const int tower = config_.asynchronous ? lane : index;
    const int8_t stream = state_.factors[factor]->streams[tower];
    if (stream < 0) continue;
    Tell({.client = stream,
          .factor = static_cast<int8_t>(factor),
          .hold = static_cast<int8_t>(step)});
  }
}

void ServerSide::OpenWaitingSteps(int factor) {
  bool opened = false;
  bool wanted = false;
  FactorRoom room(config_, state_, factor);
  for (Lane& lane : EditFactor(factor).lanes) {
    if (!lane.gather.wants_room()) continue;
    opened |= lane.gather.OpenWaiting(room);
    wanted |= lane.gather.wants_room();
  }
  if (!wanted) room.Leave();
  if (opened) NotifyAll(factor);
}

void ServerSide::OnRoom(int factor) {
  EditFactor(factor).room_scheduled = false;
  OpenWaitingSteps(factor);
}

void ServerSide::NotifyAll(int factor) {
  for (const int8_t stream : state_.factors[factor]->streams) {
    if (stream >= 0) Tell({.client = stream, .factor = static_cast<int8_t>(factor), .hold = 0});
  }
}

void ServerSide::Tell(const Notice& notice) {
  if (notice.hold == 0 &&
      std::find(state_.notices.begin(), state_.notices.end(), notice) != state_.notices.end()) {
    return;
  }
  state_.notices.push_back(notice);
  if (!config_.late_notices) DeliverNotice(state_.notices.size() - 1);
}

void ServerSide::DeliverNotice(size_t which) {
  const auto [client, factor, hold] = state_.notices[which];
  state_.notices.erase(state_.notices.begin() + static_cast<std::ptrdiff_t>(which));
  if (hold != 0) return Hold(client, factor, hold);
  if (state_.clients[client]->session.towers[factor].open) {
    state_.clients[client].Edit().session.towers[factor].ack_pending = true;
  }
}

}  // namespace fisherd::model
