// The clients of the protocol model: what UpdateStream and TowerState do around their replay
// buffers, and what their trainers do.

#ifndef FISHERD_TESTS_MODEL_CLIENT_SIDE_H_
#define FISHERD_TESTS_MODEL_CLIENT_SIDE_H_

#include <cstdint>

#include "tests/model/protocol_model.h"
#include "tests/model/protocol_state.h"

namespace fisherd::model {

// Changes `state`; lives as long as one event.
class ClientSide {
 public:
  ClientSide(const Config& config, State& state) : config_(config), state_(state) {}

  void Connect(int client);
  // The trainer's next step, or that it has ended and is skipped.
  void Push(int client, int factor);
  void Send(int client, int factor);
  void Hear(int client, const Answer& answer);
  // The trainer opens anew what was lost.
  void Reopen(int client, int factor);
  // Another process in the place of one that has died.
  void Start(int client, bool take_over);

  void OnCut(int client);
  void Die(int client);
  // At level MEMORY: the oldest batch that has counted.
  void DropOldest(int client, int factor);

  static bool MayDrop(const ClientTower& tower);

 private:
  ClientTower& Edit(int client, int factor) { return state_.clients[client].Edit().towers[factor]; }
  void OnRefused(ClientTower& tower, const Answer& answer);
  void OnProgress(ClientTower& tower, const Answer& answer);
  void End(ClientTower& tower);
  // What has been freed since, and why: `late` is a step that the server would not have.
  void Settle(ClientTower& tower, int64_t late);
  void RequestOpen(int client, int factor);
  void SendAll(int client, int factor);

  const Config& config_;
  State& state_;
};

}  // namespace fisherd::model

#endif  // FISHERD_TESTS_MODEL_CLIENT_SIDE_H_
