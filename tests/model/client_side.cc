#include "tests/model/client_side.h"

#include <algorithm>
#include <string>
#include <utility>

#include "core/error.h"

namespace fisherd::model {
namespace {

namespace reason = core::reason;

bool LosesTower(const std::string& why) {
  return why == reason::kOldIncarnation || why == reason::kTowerClaimed ||
         why == reason::kTowerNotOpen || why == reason::kFactorNotFound;
}

}  // namespace

// ---- Streams

void ClientSide::RequestOpen(int client, int factor) {
  Client& c = state_.clients[client].Edit();
  const ClientTower& tower = c.towers[factor];
  const auto [from, through] = tower.buffer.range();
  c.requests.push_back({.factor = static_cast<int8_t>(factor),
                        .step = 0,
                        .from = static_cast<int8_t>(from),
                        .through = static_cast<int8_t>(through),
                        .take_over = tower.take_over && tower.buffer.incarnation() == 0});
}

void ClientSide::Connect(int client) {
  Client& c = state_.clients[client].Edit();
  c.connected = true;
  c.session.towers.resize(config_.factors);
  for (int f = 0; f < config_.factors; ++f) {
    if (!c.towers[f].ended) RequestOpen(client, f);
  }
}

void ClientSide::Reopen(int client, int factor) {
  ClientTower& tower = Edit(client, factor);
  tower.buffer = ReplayBuffer();
  tower.ended = false;
  tower.take_over = false;
  tower.highest_next = 0;
  if (state_.clients[client]->connected) RequestOpen(client, factor);
}

void ClientSide::OnCut(int client) {
  Client& c = state_.clients[client].Edit();
  c.connected = false;
  c.requests.clear();
  for (ClientTower& tower : c.towers) tower.buffer.OnCut();
}

void ClientSide::Die(int client) {
  OnCut(client);
  Client& c = state_.clients[client].Edit();
  c.process = 0;
  for (ClientTower& tower : c.towers) End(tower);
}

void ClientSide::Start(int client, bool take_over) {
  Client& c = state_.clients[client].Edit();
  c.process = ++state_.processes;
  for (ClientTower& tower : c.towers) {
    tower.buffer = ReplayBuffer();
    tower.ended = false;
    tower.take_over = take_over;
    tower.highest_next = 0;
  }
}

// ---- Batches

void ClientSide::Push(int client, int factor) {
  ClientTower& tower = Edit(client, factor);
  if (tower.buffer.next_step_is_late()) return tower.buffer.SkipStep();
  const int64_t step = tower.buffer.next_step();
  Fate& fate = tower.fates[step - 1];
  if (fate == Fate::kNone || fate == Fate::kDropped) fate = Fate::kKept;
  tower.buffer.Push(1, nullptr);
  SendAll(client, factor);
}

void ClientSide::SendAll(int client, int factor) {
  const ReplayBuffer& buffer = state_.clients[client]->towers[factor].buffer;
  while (config_.send_at_once && buffer.NextToSend() != nullptr) Send(client, factor);
}

void ClientSide::Send(int client, int factor) {
  Client& c = state_.clients[client].Edit();
  ReplayBuffer& buffer = c.towers[factor].buffer;
  c.requests.push_back({.factor = static_cast<int8_t>(factor),
                        .step = static_cast<int8_t>(buffer.NextToSend()->step),
                        .incarnation = static_cast<uint8_t>(buffer.incarnation())});
  buffer.BeginSend();
}

bool ClientSide::MayDrop(const ClientTower& tower) {
  return !tower.ended && tower.buffer.open() && !tower.buffer.kept().empty() &&
         tower.buffer.kept().front().step < tower.buffer.next();
}

void ClientSide::DropOldest(int client, int factor) {
  ClientTower& tower = Edit(client, factor);
  const int64_t step = tower.buffer.kept().front().step;
  if (tower.fates[step - 1] == Fate::kKept) tower.fates[step - 1] = Fate::kDropped;
  tower.buffer.OnLate(step);  // which is to forget it
}

void ClientSide::Settle(ClientTower& tower, int64_t late) {
  const auto& kept = tower.buffer.kept();
  for (int64_t step = 1; step <= config_.steps; ++step) {
    Fate& fate = tower.fates[step - 1];
    if (fate != Fate::kKept) continue;
    if (std::any_of(kept.begin(), kept.end(), [&](const auto& k) { return k.step == step; })) {
      continue;
    }
    const bool missed = tower.buffer.FindMissed(step) != nullptr || step == late;
    fate = missed ? Fate::kFreedAsMissed : Fate::kFreedAsCounted;
  }
}

// ---- Answers

void ClientSide::End(ClientTower& tower) {
  tower.ended = true;
  tower.buffer.Clear();
  std::replace(tower.fates.begin(), tower.fates.end(), Fate::kKept, Fate::kNone);
  std::replace(tower.fates.begin(), tower.fates.end(), Fate::kDropped, Fate::kNone);
}

void ClientSide::OnProgress(ClientTower& tower, const Answer& answer) {
  ReplayBuffer::Progress progress = answer.progress;
  if (config_.mutant == Mutant::kFreeAtCommit) progress.durable = progress.next - 1;
  if (config_.mutant == Mutant::kVerdictsKeptOverEpochs) {
    tower.highest_next = std::max(tower.highest_next, progress.next);
    progress.next = tower.highest_next;
  }
  if (answer.kind == Answer::Kind::kAck) {
    tower.buffer.OnAck(progress);
  } else if (!tower.buffer.OnOpened(progress)) {
    return End(tower);
  } else if (tower.incarnation != progress.incarnation) {
    tower.incarnation = static_cast<uint8_t>(progress.incarnation);
    tower.fates.assign(tower.fates.size(), Fate::kNone);
  }
  Settle(tower, 0);
}

void ClientSide::OnRefused(ClientTower& tower, const Answer& answer) {
  const int64_t step = answer.step;
  if (step == 0) return End(tower);
  if (!tower.buffer.open()) return;
  if (LosesTower(answer.reason)) return End(tower);
  if (answer.reason == reason::kStepOutOfOrder) return;
  if (step < tower.buffer.next() || answer.reason == reason::kStepLate ||
      answer.reason == reason::kStepFailed) {
    tower.buffer.OnLate(step);
    return Settle(tower, step);
  }
  // Nothing else is wrong with what these clients send, but that another process of the tower may
  // have sent another batch, which is being committed.
  if (answer.reason != reason::kIdentityReused || state_.processes == config_.towers) {
    state_.violation = "a batch was refused that should not have been";
  }
  const int64_t end = tower.buffer.next_step();
  if (!tower.buffer.OnRefused(step)) return;
  for (int64_t s = step; s < end; ++s) tower.fates[s - 1] = Fate::kNone;
}

void ClientSide::Hear(int client, const Answer& answer) {
  ClientTower& tower = Edit(client, answer.factor);
  if (tower.ended) return;
  switch (answer.kind) {
    case Answer::Kind::kOpened:
    case Answer::Kind::kAck:
      OnProgress(tower, answer);
      break;
    case Answer::Kind::kHold:
      tower.buffer.OnHold(answer.step);
      break;
    case Answer::Kind::kRefused:
      OnRefused(tower, answer);
      break;
  }
  SendAll(client, answer.factor);
}

}  // namespace fisherd::model
