// What the protocol model is made of: the server's factors, the clients, and what is between them.
// Everything is a value; the larger parts are shared between states until they differ.

#ifndef FISHERD_TESTS_MODEL_PROTOCOL_STATE_H_
#define FISHERD_TESTS_MODEL_PROTOCOL_STATE_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/hash/hash.h"
#include "client/cpp/replay_buffer.h"
#include "core/ledger.h"
#include "core/room_queue.h"
#include "core/step_gather.h"

namespace fisherd::model {

// A part of a state: copied when it is changed, hashed once.
template <typename T>
class Shared {
 public:
  Shared() : node_(std::make_shared<Node>()) {}
  explicit Shared(T value) : node_(std::make_shared<Node>(Node{std::move(value), 0})) {}

  const T* operator->() const { return &node_->value; }
  const T& operator*() const { return node_->value; }
  T& Edit() {
    if (node_.use_count() > 1) node_ = std::make_shared<Node>(Node{node_->value, 0});
    node_->hash = 0;
    return node_->value;
  }
  uint64_t hash() const {
    if (node_->hash == 0) node_->hash = absl::Hash<T>()(node_->value);
    return node_->hash;
  }

 private:
  struct Node {
    T value;
    uint64_t hash = 0;
  };
  std::shared_ptr<Node> node_;
};

// A vector without memory of its own as long as it is short.
template <typename T, size_t n>
using Few = absl::InlinedVector<T, n>;

// Where absl::optional is another type, Abseil does not hash std::optional.
template <typename H, typename T>
H Combine(H h, const std::optional<T>& value) {
  return value.has_value() ? H::combine(std::move(h), true, *value)
                           : H::combine(std::move(h), false);
}

// ---- On the wire

// From a client: an open of a tower, or a batch of its.
struct Request {
  int8_t factor = 0;
  int8_t step = 0;  // 0: an open
  uint8_t incarnation = 0;
  int8_t from = 0;
  int8_t through = 0;
  bool take_over = false;

  template <typename H>
  friend H AbslHashValue(H h, const Request& r) {
    return H::combine(std::move(h), r.factor, r.step, r.incarnation, r.from, r.through,
                      r.take_over);
  }
};

struct Answer {
  enum class Kind : uint8_t { kOpened, kAck, kHold, kRefused };
  Kind kind = Kind::kAck;
  int8_t factor = 0;
  int8_t step = 0;                    // of a hold or refusal
  std::string reason;                 // of a refusal
  ReplayBuffer::Progress progress{};  // of opened and ack

  template <typename H>
  friend H AbslHashValue(H h, const Answer& a) {
    const auto& p = a.progress;
    return H::combine(std::move(h), a.kind, a.factor, a.step, a.reason, p.incarnation, p.epoch,
                      p.next, p.durable, p.open_through, p.first, p.missed);
  }
};

// ---- The server

// A batch that a lane has: whole, or on its way. Its two halves come one by one.
struct Incoming {
  core::StepGather::Ticket ticket = 0;  // 0: none; not part of what the state is
  int8_t client = 0;
  int8_t halves = 0;
  int8_t bytes = 0;

  template <typename H>
  friend H AbslHashValue(H h, const Incoming& i) {
    return H::combine(std::move(h), i.ticket != 0, i.client, i.halves, i.bytes);
  }
};

// A step that is not whole, as somebody may have been told it.
struct Told {
  int8_t step = 0;
  core::StepOutcome outcome = core::StepOutcome::kFailed;
  std::vector<int> counted;

  template <typename H>
  friend H AbslHashValue(H h, const Told& t) {
    return H::combine(std::move(h), t.step, t.outcome, t.counted);
  }
};

struct Lane {
  core::StepGather gather;
  core::Ledger ledger;
  int64_t durable = 0;  // as it is told
  int64_t expired = 0;
  bool look = false;         // its step may end now
  Few<Incoming, 4> batches;  // [(step − 1) · towers + index]
  std::vector<Told> told;    // what must come again after a rollback; one a step

  template <typename H>
  friend H AbslHashValue(H h, const Lane& l) {
    h = H::combine(std::move(h), l.gather.Fingerprint(), l.ledger.next(), l.ledger.steps_failed(),
                   l.ledger.steps_partial(), l.durable, l.expired, l.look, l.batches, l.told);
    for (const core::StepRun& run : l.ledger.Missed(0, -1)) {
      h = H::combine(std::move(h), run.first, run.last, run.outcome,
                     l.ledger.Find(run.first)->counted);
    }
    return h;
  }
};

struct Ending {
  int8_t lane = 0;
  int8_t step = 0;
  uint8_t incarnation = 0;
  core::StepOutcome outcome = core::StepOutcome::kFailed;
  std::vector<int> counted;  // of the lane's towers
  Few<Incoming, 2> batches;

  template <typename H>
  friend H AbslHashValue(H h, const Ending& e) {
    return H::combine(std::move(h), e.lane, e.step, e.incarnation, e.outcome, e.counted, e.batches);
  }
};

// A factor as it is, or was, on disk.
struct Image {
  Few<int8_t, 4> next;  // by lane
  int8_t version_step = 0;
  uint8_t version_epoch = 0;
  std::string state;  // what is in the version

  template <typename H>
  friend H AbslHashValue(H h, const Image& i) {
    return H::combine(std::move(h), i.next, i.version_step, i.version_epoch, i.state);
  }
};

struct Factor {
  uint8_t incarnation = 1;
  Few<Lane, 1> lanes;
  Few<int8_t, 4> known;    // by tower: the process that holds it, or 0
  Few<int8_t, 4> streams;  // by tower: the client whose stream has claimed it, or −1
  Few<int8_t, 4> from;     // by tower: as it was opened last, or −1
  std::vector<std::pair<int8_t, int8_t>> tower_changes;  // from which step on, how many
  int8_t active_towers = 0;                              // under ASYNCHRONOUS
  bool room_scheduled = false;
  std::optional<Ending> ending;  // one at a time
  std::string state;             // [tower · steps + step − 1]: how often the batch has counted
  int8_t version_step = 0;
  uint8_t version_epoch = 1;
  std::vector<Image> images;  // the one on disk, and those that may be there already

  template <typename H>
  friend H AbslHashValue(H h, const Factor& f) {
    return H::combine(Combine(std::move(h), f.ending), f.incarnation, f.lanes, f.known, f.streams,
                      f.tower_changes, f.active_towers, f.room_scheduled, f.state, f.version_step,
                      f.version_epoch, f.images);
  }
};

// What a server keeps of one client's stream.
struct Session {
  struct Tower {
    bool open = false;
    uint8_t incarnation = 0;
    int8_t told_next = 1;
    bool ack_pending = false;

    template <typename H>
    friend H AbslHashValue(H h, const Tower& t) {
      return H::combine(std::move(h), t.open, t.incarnation, t.told_next, t.ack_pending);
    }
  };
  // Between a header and its end.
  struct Arriving {
    Request batch;
    core::StepGather::Ticket ticket = 0;  // 0: read and discarded,
    bool duplicate = false;               // because it is here already
    bool live = true;                     // the factor has it still; else the ticket is stale

    template <typename H>
    friend H AbslHashValue(H h, const Arriving& a) {
      return H::combine(std::move(h), a.batch, a.ticket != 0, a.duplicate, a.live);
    }
  };
  Few<Tower, 2> towers;  // by factor
  std::vector<Answer> answers;
  std::optional<Arriving> arriving;

  template <typename H>
  friend H AbslHashValue(H h, const Session& s) {
    return H::combine(Combine(std::move(h), s.arriving), s.towers, s.answers);
  }
};

// ---- The client

// What has become of a batch, as far as its client knows; of all processes of a tower.
enum class Fate : uint8_t { kNone, kKept, kFreedAsCounted, kFreedAsMissed, kDropped };

// One tower of one factor in a trainer's process.
struct ClientTower {
  ReplayBuffer buffer;
  bool ended = false;
  bool take_over = false;
  uint8_t incarnation = 0;   // that the fates are of
  Few<Fate, 4> fates;        // by step
  int64_t highest_next = 0;  // of a mutant

  template <typename H>
  friend H AbslHashValue(H h, const ClientTower& t) {
    return H::combine(std::move(h), t.buffer, t.ended, t.take_over, t.incarnation, t.fates,
                      t.highest_next);
  }
};

// A trainer's process, its stream, and the server's end of that.
struct Client {
  int8_t process = 1;  // 0: dead
  bool connected = false;
  Few<ClientTower, 1> towers;  // by factor
  Few<Request, 4> requests;    // on their way
  Session session;

  template <typename H>
  friend H AbslHashValue(H h, const Client& c) {
    return H::combine(std::move(h), c.process, c.connected, c.towers, c.requests, c.session);
  }
};

// What a factor has yet to tell a session.
struct Notice {
  int8_t client = 0;
  int8_t factor = 0;
  int8_t hold = 0;  // a step; 0: progress

  bool operator==(const Notice&) const = default;
  template <typename H>
  friend H AbslHashValue(H h, const Notice& n) {
    return H::combine(std::move(h), n.client, n.factor, n.hold);
  }
};

struct Room {
  core::RoomQueue<int> queue{0};

  template <typename H>
  friend H AbslHashValue(H h, const Room& r) {
    h = H::combine(std::move(h), r.queue.used());
    for (const auto& [factor, bytes] : r.queue.waiting())
      h = H::combine(std::move(h), factor, bytes);
    return h;
  }
};

// How often the adversary may still strike.
struct Adversity {
  int8_t cuts = 0;
  int8_t crashes = 0;
  int8_t timeouts = 0;
  int8_t deaths = 0;
  int8_t drops = 0;
  int8_t resets = 0;
  int8_t tower_changes = 0;
  int8_t take_overs = 0;

  template <typename H>
  friend H AbslHashValue(H h, const Adversity& a) {
    return H::combine(std::move(h), a.cuts, a.crashes, a.timeouts, a.deaths, a.drops, a.resets,
                      a.tower_changes, a.take_overs);
  }
};

struct State {
  uint8_t epoch = 1;
  uint8_t incarnations = 1;
  int8_t processes = 0;
  Adversity left;
  const char* violation = nullptr;  // found by an event
  Shared<Room> room;
  Few<Shared<Factor>, 2> factors;
  Few<Shared<Client>, 3> clients;
  std::vector<Notice> notices;

  uint64_t hash() const {
    Few<uint64_t, 6> parts;
    for (const auto& factor : factors) parts.push_back(factor.hash());
    for (const auto& client : clients) parts.push_back(client.hash());
    return absl::HashOf(epoch, incarnations, processes, left, violation != nullptr, room.hash(),
                        parts, notices);
  }
};

}  // namespace fisherd::model

#endif  // FISHERD_TESTS_MODEL_PROTOCOL_STATE_H_
