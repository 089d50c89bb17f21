#include "tests/model/protocol_model.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "tests/model/client_side.h"
#include "tests/model/server_side.h"

namespace fisherd::model {
namespace {

using Kind = Event::Kind;

}  // namespace

State ProtocolModel::Initial() const {
  State state;
  state.left = config_.adversity;
  state.room = Shared<Room>(Room{core::RoomQueue<int>(config_.budget)});
  for (int f = 0; f < config_.factors; ++f) {
    state.factors.emplace_back(ServerSide::NewFactor(config_, ++state.incarnations, state.epoch));
  }
  Client client;
  client.process = 0;
  client.towers.resize(config_.factors);
  for (ClientTower& tower : client.towers) tower.fates.assign(config_.steps, Fate::kNone);
  for (int c = 0; c < config_.most_towers + config_.rivals; ++c) {
    state.clients.emplace_back(client);
    if (c < config_.towers) ClientSide(config_, state).Start(c, false);
  }
  for (int c = 0; c < config_.towers && config_.opened; ++c) {
    ClientSide(config_, state).Connect(c);
    for (int f = 0; f < config_.factors; ++f) {
      ServerSide(config_, state).Receive(c);
      ClientSide(config_, state).Hear(c, ServerSide(config_, state).TakeAnswer(c, -1));
    }
  }
  return state;
}

// ---- What can happen

void ProtocolModel::Events(const State& state, std::vector<Event>* events) const {
  ClientEvents(state, events);
  FactorEvents(state, events);
  AdverseEvents(state, events);
}

bool ProtocolModel::MayPush(const Client& client, int number, int factor) const {
  const ReplayBuffer& buffer = client.towers[factor].buffer;
  if (buffer.next_step() > config_.steps) return false;
  if (!buffer.next_step_is_late() && !buffer.has_room()) return false;
  for (int f = 0; f < config_.factors && config_.in_turn; ++f) {
    const int64_t step = client.towers[f].buffer.next_step();
    const bool before = number % 2 == 0 ? f < factor : f > factor;
    if (step < buffer.next_step() || (before && step == buffer.next_step())) return false;
  }
  return true;
}

void ProtocolModel::ClientEvents(const State& state, std::vector<Event>* events) const {
  for (int8_t c = 0; c < static_cast<int8_t>(state.clients.size()); ++c) {
    const Client& client = *state.clients[c];
    const auto add = [&](Kind kind, int b = 0) {
      events->push_back({kind, c, static_cast<int8_t>(b), 0});
    };
    if (client.process == 0) {
      const core::StepGather& gather = state.factors[0]->lanes[0].gather;
      const int towers = config_.asynchronous ? state.factors[0]->active_towers
                                              : gather.plan().MostFrom(gather.next());
      if (c < config_.most_towers && c < towers) add(Kind::kRevive);
      if (c >= config_.most_towers && state.left.take_overs > 0) add(Kind::kTakeOver);
      continue;
    }
    if (!client.connected) add(Kind::kConnect);
    if (!client.requests.empty()) add(Kind::kReceive);
    if (!client.session.answers.empty()) add(Kind::kHear, -1);
    for (int f = 0; f < config_.factors; ++f) {
      const ClientTower& tower = client.towers[f];
      const ReplayBuffer& buffer = tower.buffer;
      if (client.connected && client.session.answers.empty() &&
          client.session.towers[f].ack_pending) {
        add(Kind::kHear, f);
      }
      const Factor& factor = *state.factors[f];
      const bool reset = tower.incarnation != 0 && tower.incarnation != factor.incarnation;
      const int8_t owner = factor.streams[c % config_.most_towers];
      if (tower.ended && (reset || owner < 0 || owner == c)) {
        add(Kind::kReopen, f);
      }
      if (tower.ended || buffer.incarnation() == 0) continue;
      if (MayPush(client, c, f)) add(Kind::kPush, f);
      if (client.connected && buffer.NextToSend() != nullptr) add(Kind::kSend, f);
    }
  }
}

void ProtocolModel::FactorEvents(const State& state, std::vector<Event>* events) const {
  for (int8_t f = 0; f < config_.factors; ++f) {
    const Factor& factor = *state.factors[f];
    const auto add = [&](Kind kind, int b = 0) {
      events->push_back({kind, f, static_cast<int8_t>(b), 0});
    };
    if (factor.ending.has_value()) {
      add(Kind::kPublish);
    } else {
      for (size_t l = 0; l < factor.lanes.size(); ++l) {
        if (factor.lanes[l].look) add(Kind::kTakeStep, static_cast<int>(l));
      }
    }
    if (factor.images.size() > 1 && (state.left.crashes > 0 || HasEnded(factor))) {
      add(Kind::kDurable);
    }
    if (factor.room_scheduled) add(Kind::kOnRoom);
  }
  for (size_t n = 0; n < state.notices.size(); ++n) {
    events->push_back({Kind::kNotice, static_cast<int8_t>(n), 0, 0});
  }
}

bool ProtocolModel::HasEnded(const Factor& factor) const {
  for (size_t l = 0; l < factor.lanes.size(); ++l) {
    if (config_.asynchronous && static_cast<int>(l) >= factor.active_towers) continue;
    if (factor.lanes[l].ledger.next() <= config_.steps) return false;
  }
  return true;
}

void ProtocolModel::AdverseEvents(const State& state, std::vector<Event>* events) const {
  const bool over = std::all_of(state.factors.begin(), state.factors.end(),
                                [&](const auto& factor) { return HasEnded(*factor); });
  if (over && state.left.crashes == 0 && state.left.resets == 0) return;
  const Adversity& left = state.left;
  const auto add = [&](Kind kind, int a, int b = 0, int c = 0) {
    events->push_back(
        {kind, static_cast<int8_t>(a), static_cast<int8_t>(b), static_cast<int8_t>(c)});
  };
  for (int c = 0; c < static_cast<int>(state.clients.size()); ++c) {
    const Client& client = *state.clients[c];
    if (client.process == 0) continue;
    if (left.cuts > 0 && client.connected && (c == 0 || !config_.alike)) add(Kind::kCut, c);
    if (left.deaths > 0) add(Kind::kDie, c);
    for (int f = 0; f < config_.factors && left.drops > 0; ++f) {
      if (ClientSide::MayDrop(client.towers[f])) add(Kind::kDrop, c, f);
    }
  }
  int images = 1;
  bool recording = false;
  for (int f = 0; f < config_.factors; ++f) {
    const Factor& factor = *state.factors[f];
    images *= static_cast<int>(factor.images.size());
    recording |= factor.ending.has_value() && factor.ending->outcome != core::StepOutcome::kWhole &&
                 factor.ending->incarnation == factor.incarnation;
    for (int l = 0; l < static_cast<int>(factor.lanes.size()) && left.timeouts > 0; ++l) {
      const core::StepGather& gather = factor.lanes[l].gather;
      const bool runs = !gather.committing() && gather.open_through() >= gather.next();
      if (runs && factor.lanes[l].expired != gather.next()) add(Kind::kExpire, f, l);
    }
    if (left.resets > 0) add(Kind::kReset, f);
    for (int towers = config_.towers; towers <= config_.most_towers && left.tower_changes > 0;
         ++towers) {
      add(Kind::kSetTowers, f, towers, 0);
      if (!config_.asynchronous) add(Kind::kSetTowers, f, towers, 1);
    }
  }
  for (int i = 0; i < std::min(images, 127) && left.crashes > 0; ++i) {
    add(Kind::kCrash, i);
    if (recording) add(Kind::kCrash, i, 1);
  }
}

void ProtocolModel::Apply(State* state, const Event& event) const {
  ServerSide server(config_, *state);
  ClientSide client(config_, *state);
  const auto [kind, a, b, c] = event;
  switch (kind) {
    case Kind::kConnect:
      return client.Connect(a);
    case Kind::kPush:
      return client.Push(a, b);
    case Kind::kSend:
      return client.Send(a, b);
    case Kind::kReceive:
      return server.Receive(a);
    case Kind::kHear:
      return client.Hear(a, server.TakeAnswer(a, b));
    case Kind::kReopen:
      return client.Reopen(a, b);
    case Kind::kRevive:
      return client.Start(a, false);
    case Kind::kTakeStep:
      return server.TakeStep(a, b);
    case Kind::kPublish:
      return server.Publish(a);
    case Kind::kDurable:
      return server.BecomeDurable(a);
    case Kind::kOnRoom:
      return server.OnRoom(a);
    case Kind::kNotice:
      return server.DeliverNotice(a);
    default:
      return Strike(state, event);
  }
}

void ProtocolModel::Strike(State* state, const Event& event) const {
  ServerSide server(config_, *state);
  ClientSide client(config_, *state);
  const auto [kind, a, b, c] = event;
  Adversity& left = state->left;
  switch (kind) {
    case Kind::kExpire:
      --left.timeouts;
      return server.Expire(a, b);
    case Kind::kCut:
      --left.cuts;
      server.CloseSession(a);
      return client.OnCut(a);
    case Kind::kCrash:
      --left.crashes;
      server.Restart(a, b != 0);
      for (size_t i = 0; i < state->clients.size(); ++i) client.OnCut(static_cast<int>(i));
      return;
    case Kind::kDie:
      --left.deaths;
      if (state->clients[a]->connected) server.CloseSession(a);
      return client.Die(a);
    case Kind::kDrop:
      --left.drops;
      return client.DropOldest(a, b);
    case Kind::kReset:
      --left.resets;
      return server.Reset(a);
    case Kind::kSetTowers:
      --left.tower_changes;
      return server.SetTowers(a, b, c != 0);
    default:
      --left.take_overs;
      return client.Start(a, true);
  }
}

// ---- What must hold

std::string ProtocolModel::CheckFactor(const State& state, int number) const {
  const Factor& factor = *state.factors[number];
  for (const char count : factor.state) {
    if (count > 1) return "a batch has counted twice";
  }
  int64_t reserved = 0;
  for (size_t l = 0; l < factor.lanes.size(); ++l) {
    const Lane& lane = factor.lanes[l];
    const bool ends = factor.ending.has_value() && factor.ending->lane == static_cast<int>(l) &&
                      factor.ending->incarnation == factor.incarnation;
    if (lane.gather.next() != lane.ledger.next()) return "gather and ledger differ on next";
    int64_t held = 0;
    int batches = 0;
    for (const Incoming& batch : lane.batches) {
      batches += batch.ticket != 0;
      held += batch.bytes;
    }
    if (ends) {
      for (const Incoming& batch : factor.ending->batches) held += batch.bytes;
    } else if (batches != lane.gather.BatchesHeld() &&
               config_.mutant != Mutant::kAssemblyByIdentity) {
      return "the batches are not those that the gather knows of";
    }
    if (config_.mutant != Mutant::kNoReservation && held > lane.gather.bytes()) {
      return "open steps hold more bytes than they have reserved";
    }
    reserved += lane.gather.bytes();
  }
  return config_.mutant != Mutant::kNoReservation && reserved > config_.budget
             ? "the steps of a factor have reserved more than the budget"
             : "";
}

std::string ProtocolModel::CheckRoom(const State& state) const {
  if (config_.mutant == Mutant::kNoReservation) return "";
  int64_t reserved = 0;
  for (const auto& factor : state.factors) {
    for (const Lane& lane : factor->lanes) reserved += lane.gather.bytes();
  }
  const auto& queue = state.room->queue;
  if (queue.used() != reserved) return "the budget is not the sum of what steps have reserved";
  if (queue.used() > queue.limit()) return "more bytes are reserved than the budget has";
  if (const auto ready = queue.Ready();
      ready.has_value() && !state.factors[*ready]->room_scheduled) {
    return "there is room for the first who waits, and it is not told";
  }
  if (queue.waiting().empty()) return "";
  const Factor& first = *state.factors[queue.waiting().front().first];
  const bool wants = std::any_of(first.lanes.begin(), first.lanes.end(),
                                 [](const Lane& lane) { return lane.gather.wants_room(); });
  return wants || first.room_scheduled ? "" : "the first who waits for room does not want it";
}

std::string ProtocolModel::CheckClient(const State& state, int number) const {
  const Client& client = *state.clients[number];
  const int t = number % config_.most_towers;
  for (int f = 0; f < config_.factors; ++f) {
    const ClientTower& tower = client.towers[f];
    const Factor& factor = *state.factors[f];
    if (tower.incarnation != factor.incarnation) continue;
    for (int64_t step = 1; step <= config_.steps; ++step) {
      const size_t place = t * config_.steps + step - 1;
      const Fate fate = tower.fates[step - 1];
      if (fate == Fate::kFreedAsCounted && factor.images[0].state[place] != 1) {
        return "a batch was freed as counted and is not on disk";
      }
      if (fate == Fate::kFreedAsMissed && factor.state[place] != 0) {
        return "a batch was freed as missed and has counted";
      }
      if (fate == Fate::kKept && tower.buffer.open() && tower.buffer.epoch() == state.epoch &&
          step < tower.buffer.next() && factor.state[place] != 1) {
        return "a client believes that its batch has counted, and it has not";
      }
    }
  }
  return "";
}

std::string ProtocolModel::Check(const State& state) const {
  if (state.violation != nullptr) return state.violation;
  std::string violation = CheckRoom(state);
  for (int f = 0; f < config_.factors && violation.empty(); ++f) violation = CheckFactor(state, f);
  for (size_t c = 0; c < state.clients.size() && violation.empty(); ++c) {
    violation = CheckClient(state, static_cast<int>(c));
  }
  return violation;
}

bool ProtocolModel::IsGoal(const State& state) const {
  for (const auto& factor : state.factors) {
    if (!HasEnded(*factor)) return false;
  }
  return std::all_of(state.clients.begin(), state.clients.end(), [](const auto& client) {
    return std::all_of(client->towers.begin(), client->towers.end(),
                       [](const ClientTower& tower) { return tower.buffer.kept().empty(); });
  });
}

std::string ProtocolModel::Describe(const Event& event) const {
  static constexpr const char* kNames[] = {
      "connects, client",
      "pushes a step, client and factor",
      "sends a batch, client and factor",
      "the server takes a message of client",
      "hears an answer (−1) or an acknowledgement, client and factor",
      "opens anew, client and factor",
      "starts, client",
      "a step is taken, of factor and lane",
      "the step ends, of factor",
      "all is durable, of factor",
      "is told of room, factor",
      "a session is told, notice",
      "the clock rings, of factor and lane",
      "CUT, client",
      "CRASH, back to image, outcome on record",
      "DIES, client",
      "drops the oldest that counted, client and factor",
      "RESET, factor",
      "SET TOWERS, factor, towers, now",
      "TAKES OVER, client"};
  return absl::StrCat(kNames[static_cast<int>(event.kind)], " ", event.a, " ", event.b,
                      event.c != 0 ? " 1" : "");
}

}  // namespace fisherd::model
