// One named factor: a kind's state, the steps that advance it, and the reads of it, behind one
// lock.

#ifndef FISHERD_CORE_FACTOR_H_
#define FISHERD_CORE_FACTOR_H_

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/activity.h"
#include "core/backend.h"
#include "core/batch_header.h"
#include "core/batch_reader.h"
#include "core/byte_budget.h"
#include "core/commit_record.h"
#include "core/compute_pool.h"
#include "core/damping_table.h"
#include "core/factor_info.h"
#include "core/factor_spec.h"
#include "core/factor_store.h"
#include "core/incoming_batch.h"
#include "core/kinds/kind.h"
#include "core/ledger.h"
#include "core/linear_operator.h"
#include "core/mutex.h"
#include "core/registered_results.h"
#include "core/step_gather.h"
#include "core/timer_queue.h"
#include "core/watch_hub.h"

namespace fisherd::core {

class Factor;

// What the factors of a server share. Outlives them; see FactorRegistry.
struct FactorEnvironment {
  Backend* backend = nullptr;
  ComputePool* pool = nullptr;
  ByteBudget* state_budget = nullptr;  // states, pinned versions, results
  ByteBudget* batch_budget = nullptr;  // batches of open steps
  DampingTable* dampings = nullptr;
  WatchHub* watchers = nullptr;
  TimerQueue* timers = nullptr;
  Activity* activity = nullptr;
  FactorStore* store = nullptr;  // null: nothing survives, and everything counts as durable
  uint64_t epoch = 0;            // the server's start number
  // The most that the open steps of one factor may hold of batch_budget.
  int64_t factor_batch_limit = std::numeric_limits<int64_t>::max();
  // Rows times elements of the state up to which a step is small, see PendingBatch::Complete.
  double small_work = 0;
  // Of a restored factor, in place of its gather_timeout.
  absl::Duration recovery_timeout = absl::Minutes(10);
};

// 16 random bytes that name a trainer process.
using ClientId = std::array<std::byte, 16>;

// One content of a factor. Readers pin it; commits replace it, or advance it in place when nobody
// does.
struct StateVersion {
  Version version;
  int64_t steps_committed = 0;
  double total_weight = 0;
  double bound = 0;    // of every element
  uint64_t label = 0;  // the trainer's, of the last committed step
  std::unique_ptr<Matrix> matrix;
  // Guarded by the factor's lock. While pinned, all else here is immutable.
  int pins = 0;
  ByteGrant pin_grant;  // for the copy that a commit makes of a pinned version
};

// Where a factor stands, as a tower's stream needs it for `opened` and `ack`.
struct Progress {
  uint64_t incarnation = 0;
  uint64_t epoch = 0;
  int towers = 0;  // of step `next`
  int64_t next = 1;
  int64_t durable = 0;
  int64_t open_through = 0;
  int window = 0;
  std::vector<StepRun> missed;  // by this tower
  int64_t first = 0;            // the lowest step from `next` on that the tower is of; 0: none
  bool deleted = false;
};

// Who feeds a tower: a stream. Its methods are called without locks, from pool threads, and must
// not block.
class ProgressListener {
 public:
  virtual ~ProgressListener() = default;
  // A step of the factor has ended or opened, or its incarnation has ended, by reset or deletion;
  // or another client has taken over a tower.
  virtual void OnProgress(const std::shared_ptr<Factor>& factor) = 0;
  // The tower's batches from `step` on had to make room.
  virtual void OnHold(const std::shared_ptr<Factor>& factor, int tower, int64_t step) = 0;
};

// The end of a step, to be called once, soon, by whoever was given it, with no locks held. Empty if
// there is none.
using SmallCommit = std::function<void()>;

// A batch on its way in. Used by one thread; abandoned when it goes before Complete.
class PendingBatch {
 public:
  ~PendingBatch();
  PendingBatch(const PendingBatch&) = delete;
  PendingBatch& operator=(const PendingBatch&) = delete;

  IncomingBatch& rows() { return *rows_; }

  // The batch is whole: `rows` is the sender's count of them. Hands it to its step, which commits
  // when all towers' batches are there. OK too if it had to make room meanwhile, which the listener
  // is told, or if its step is ending without it. FAILED_PRECONDITION (OLD_INCARNATION,
  // TOWER_CLAIMED, STEP_LATE, STEP_FAILED) if the step no longer wants it.
  //
  // With `commit`, a step that takes less time than to wake another thread is left to the caller.
  absl::Status Complete(int64_t rows, SmallCommit* commit = nullptr);

 private:
  friend class Factor;
  PendingBatch(std::shared_ptr<Factor> factor, const BatchHeader& header,
               const ProgressListener* stream, StepGather::Ticket ticket,
               std::shared_ptr<IncomingBatch> rows);

  const std::shared_ptr<Factor> factor_;
  const uint64_t incarnation_;
  const int64_t step_;
  const int tower_;
  const ProgressListener* const stream_;
  const StepGather::Ticket ticket_;
  const std::shared_ptr<IncomingBatch> rows_;
  bool done_ = false;
};

// What Begin says to a batch.
struct BatchAdmission {
  std::unique_ptr<PendingBatch> pending;  // null: to be read and discarded,
  bool on_hold = false;                   // for want of room; else it is here or counted already
};

// Thread-safe. Nothing blocks but short sections under the lock: commits and the computing for
// reads run on the pool. Always held by shared_ptr: streams, reads and commits keep it alive beyond
// its deletion.
class Factor final : public RoomWaiter, public std::enable_shared_from_this<Factor> {
 public:
  // Allocates the state. INVALID_ARGUMENT for a bad specification; RESOURCE_EXHAUSTED
  // (STATE_BUDGET), before anything is allocated, with the estimate in the message.
  static absl::StatusOr<std::shared_ptr<Factor>> Create(std::string name, const FactorSpec& spec,
                                                        uint64_t incarnation,
                                                        const FactorEnvironment& environment);
  // Writes every element of a state; what it cannot is an error.
  using StateFill = std::function<absl::Status(const Kind& kind, Backend& backend, Matrix& state)>;
  // As it was when the image was taken, under a new epoch, with everybody's batches to come again.
  // Errors as Create's, and those of `fill`.
  static absl::StatusOr<std::shared_ptr<Factor>> Restore(const FactorImage& image,
                                                         const StateFill& fill,
                                                         const FactorEnvironment& environment);

  const std::string& name() const { return name_; }
  const FactorSpec& spec() const { return spec_; }
  const Kind& kind() const { return *kind_; }

  // --- Updates (SPEC §5) ---

  struct Claim {
    int tower = 0;
    ClientId client{};
    int64_t from = 0;     // the lowest step that the client can still send; 0: it is new
    int64_t through = 0;  // the highest that it was given
    bool take_over = false;
  };
  // Claims a tower for a client's stream, and keeps `stream` until Close. Another client's claim
  // stands while its stream lives, unless take_over; when it falls, that client's batches of steps
  // that have not ended are dropped. In steps below `from` the tower is missing.
  //   OUT_OF_RANGE for the tower; FAILED_PRECONDITION (TOWER_CLAIMED)
  absl::StatusOr<Progress> Open(const Claim& claim, std::shared_ptr<ProgressListener> stream);

  // The stream has ended: its claims no longer stand against others.
  void Close(const ProgressListener* stream);

  // Asks to send a batch. Errors as in SPEC §6, each naming the field.
  absl::StatusOr<BatchAdmission> Begin(const BatchHeader& header, const ProgressListener* stream);

  // Where the factor stands for a tower; `missed` from step `missed_from` on.
  Progress GetProgress(int tower, int64_t missed_from) const;

  // How an ended step of the tower's ended.
  StepOutcome OutcomeOf(int tower, int64_t step) const;

  // How many towers a step from the next one on may have.
  int towers() const;

  // The tower is this stream's.
  bool IsOwner(int tower, const ProgressListener* stream) const;

  // Changes the number of towers, from the step that is answered on. INVALID_ARGUMENT unless 1 ≤
  // towers ≤ kMaxTowers. Under ASYNCHRONOUS at once.
  absl::StatusOr<int64_t> SetTowers(int towers, bool now);

  // There may be room for a step that waits.
  void OnRoom() override;

  // --- Reads (SPEC §3) ---

  // Calls back exactly once, from a pool thread: with the result, or an error, or CANCELLED after
  // CancelRead. The number names the read until then.
  uint64_t StartRead(const ReadRequest& request, ReadCallback callback);
  // No effect on a read that has been, or is being, answered.
  void CancelRead(uint64_t read);

  // --- Registered results (SPEC §4) ---

  absl::StatusOr<RegistrationInfo> Register(const OperatorSpec& op, const RefreshPolicy& policy);
  absl::Status Unregister(const OperatorSpec& op);
  // Computes all registered results of the current version; calls back from a pool thread with
  // their number.
  void UpdateInverses(std::function<void(absl::StatusOr<int>)> callback);

  // --- Durability (SPEC §5) ---

  // What the factor is, without its state and the ledgers.
  FactorImage Life() const;
  // The factor as it stands, whose version stays pinned as long as the image's state is held.
  // UNAVAILABLE while a step overwrites it; RESOURCE_EXHAUSTED (STATE_BUDGET) if there is no room
  // for one more pinned version; FAILED_PRECONDITION if it is deleted.
  absl::StatusOr<FactorImage> TryImage();
  // The same, once no step overwrites it: calls back from this thread or a pool thread.
  using ImageCallback = std::function<void(absl::StatusOr<FactorImage>)>;
  void StartImage(ImageCallback callback);
  // The same, waited for; UNAVAILABLE if there is none within `patience`.
  absl::StatusOr<FactorImage> AwaitImage(absl::Duration patience = absl::InfiniteDuration());
  // All that the image holds of its incarnation is on disk.
  void SetDurable(const FactorImage& image);

  // --- Life ---

  // Back to the initial covariance and step 1. Batches and waiting reads get OLD_INCARNATION.
  absl::Status Reset(uint64_t incarnation);
  // As Reset, but to what the image says, of this factor's specification, with `state`, in host
  // memory, as the state; registrations stay.
  absl::Status Become(const FactorImage& image, std::unique_ptr<Matrix> state);
  // No name leads here any more. As Reset for who waits; later calls are NOT_FOUND.
  void Retire();

  FactorInfo Describe() const;

  // Shows the factor as it stands to one who watches, unless it is retired; its events follow.
  void Present(Watcher& watcher) const;
  // It has been given its name: to be called under the lock that makes the name known.
  void TellCreated() const;

 private:
  friend class PendingBatch;

  struct Tower {
    ClientId client{};
    std::shared_ptr<ProgressListener> stream;  // null: not claimed
    bool known = false;                        // `client` has a meaning
  };
  // A step's batches that are whole or arriving, by tower; null for others.
  using StepBatches = std::vector<std::shared_ptr<IncomingBatch>>;
  // Steps that follow each other: those of all towers together, or under ASYNCHRONOUS of one tower.
  struct Lane {
    StepGather gather;
    Ledger ledger;
    int64_t durable = 0;
    std::map<int64_t, StepBatches> batches;  // of open steps
    // The gather clock: what it runs for, when it ends, and for which step it has ended.
    struct ClockOf {
      int64_t step = 0;
      bool has_batch = false;
      bool recovering = false;
      bool operator==(const ClockOf&) const = default;
    };
    ClockOf clock_of;
    absl::Time deadline = absl::InfiniteFuture();
    int64_t expired = 0;
  };
  // What has to happen when the lock is no longer held.
  struct Aftermath {
    std::vector<std::shared_ptr<IncomingBatch>> dropped;
    struct Notice {
      std::shared_ptr<ProgressListener> stream;
      int tower = 0;
      int64_t step = 0;
    };
    std::vector<Notice> holds;
    std::set<std::shared_ptr<ProgressListener>> progress;  // whom OnProgress is due
  };
  struct PendingRead {
    ReadRequest request;
    ReadCallback callback;
    bool waiting = false;  // for WakeReads; else a task of the pool will look at it
    bool cancelled = false;
  };
  // What a read is served from.
  struct ReadSource {
    ReadResult result;                           // all but the operator
    std::shared_ptr<const StateVersion> pin;     // a pinned version,
    std::shared_ptr<const CachedResult> cached;  // or a cached result,
    std::shared_ptr<Registration> to_compute;    // or one to be computed from `pin`; marked so
  };
  // A step that ends. Its batches, once it is to be computed, change no more.
  struct Ending {
    size_t lane = 0;
    int64_t step = 0;
    StepOutcome outcome = StepOutcome::kFailed;
    std::vector<int> counted;                            // of the lane's towers, unless FAILED
    std::vector<std::unique_ptr<Batch>> batches;         // theirs
    std::vector<std::shared_ptr<IncomingBatch>> others;  // whose time is over
    uint64_t incarnation = 0;
    uint64_t label = 0;
    // Unless FAILED:
    StepParameters parameters;
    std::shared_ptr<StateVersion> from;
    std::shared_ptr<StateVersion>
        to;            // `from` itself if nobody holds it; null if there is no memory
    double bound = 0;  // of the result; not finite if it may overflow
    double total_weight = 0;
    Version version;
    std::optional<absl::Time>
        logged;  // when its record was given to the store, by the monotonic clock
  };
  class Room;

  Factor(std::string name, const FactorSpec& spec, std::unique_ptr<const Kind> kind,
         uint64_t incarnation, const FactorEnvironment& environment, ByteGrant state_grant,
         ByteGrant pin_reserve);

  // Null if there is no memory.
  std::shared_ptr<StateVersion> InitialVersion(uint64_t incarnation) const;
  // The lowest step that has not ended, and through which all is on disk. Under ASYNCHRONOUS they
  // count the commits of all towers.
  int64_t NextLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  int64_t DurableLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool HasEnded(int64_t step) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status OldIncarnation(uint64_t incarnation) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  FactorEvent EventLocked(FactorEventKind kind) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Progress ProgressLocked(int tower, int64_t missed_from) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The steps from `from` on in which a lane's tower did not count, ascending.
  std::vector<StepRun> MissedBy(const Lane& lane, int index, int64_t from) const;
  void ResetLocked(Aftermath& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ReplaceState(uint64_t incarnation, std::shared_ptr<StateVersion> fresh,
                            const FactorImage* image);
  std::shared_ptr<const CachedResult> AdoptResult(std::shared_ptr<const CachedResult> result) const;
  void AdoptLocked(const FactorImage& image, StateVersion& state)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  // factor_update.cc: batches in, steps out.
  bool asynchronous() const { return spec_.update_mode == UpdateMode::kAsynchronous; }
  std::vector<Lane> NewLanes() const;
  Lane& LaneOf(int tower) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  const Lane& LaneOf(int tower) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // A tower's number in its lane, and the first tower of a lane.
  int IndexOf(int tower) const { return asynchronous() ? 0 : tower; }
  int FirstTower(size_t lane) const { return asynchronous() ? static_cast<int>(lane) : 0; }
  // Towers that a step from next on may have.
  int TowersLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckHeader(const BatchHeader& header, const ProgressListener* stream) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<BatchAdmission> BeginLocked(const BatchHeader& header,
                                             const ProgressListener* stream, Aftermath& after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CheckMissed(const Lane& lane, const BatchHeader& header) const;
  absl::Status CompleteBatch(const PendingBatch& pending, SmallCommit* commit);
  void AbandonBatch(const PendingBatch& pending);
  void ApplyHolds(size_t lane, std::span<const StepGather::Hold> holds, Aftermath& after)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OpenWaitingSteps(Aftermath& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void NotifyAll(Aftermath& after) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // The one from a pool thread, the other from anywhere: whom it tells may be the caller.
  void Settle(Aftermath after) ABSL_LOCKS_EXCLUDED(mutex_);
  void SettleLater(Aftermath after) ABSL_LOCKS_EXCLUDED(mutex_);

  // factor_commit.cc: how steps end.
  void Look(size_t lane, SmallCommit* commit = nullptr) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  bool IsSmall(const Lane& lane) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  StepGather::Verdict VerdictOf(const Lane& lane) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // One step at a time goes through these, in this order; where the disk has to say something, the
  // next is called when it has.
  void RunCommit();
  std::shared_ptr<Ending> TakeStep();
  void RecordOutcome(const std::shared_ptr<Ending>& ending,
                     void (Factor::*next)(const std::shared_ptr<Ending>&));
  void ComputeStep(const std::shared_ptr<Ending>& ending);
  void LogStep(const std::shared_ptr<Ending>& ending);
  void EndStep(const std::shared_ptr<Ending>& ending);
  void TakeNextStep();
  bool PrepareCommit(Ending& ending);
  double Compute(const Ending& ending) const;
  bool Publish(const Ending& ending, Aftermath& after);
  void CountEnded(StepOutcome outcome) const;
  void TellEnded(const Ending& ending) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // What `done` calls of a store that has said yes: `next`, on the pool.
  FactorStore::Done Then(const std::shared_ptr<Ending>& ending,
                         void (Factor::*next)(const std::shared_ptr<Ending>&));
  bool logs_steps() const {
    return environment_.store != nullptr && spec_.durability == DurabilityLevel::kSync;
  }
  FactorImage LifeLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::StatusOr<FactorImage> ImageLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunImages();
  void UpdateClock(Lane& lane) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void ArmTimer() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void OnTimer();

  // factor_read.cc: reads and registered results.
  void RunRead(uint64_t id);
  // nullopt: not yet, the read waits.
  absl::StatusOr<std::optional<ReadSource>> PlanRead(const ReadRequest& request,
                                                     std::optional<double> damping)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<const StateVersion> PinFor(const ReadRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  std::shared_ptr<const StateVersion> Pin(const std::shared_ptr<StateVersion>& version)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Unpin(const std::shared_ptr<StateVersion>& version);
  absl::StatusOr<ReadResult> Serve(const ReadRequest& request, ReadSource source);
  absl::StatusOr<std::shared_ptr<const CachedResult>> ComputeResult(
      const std::shared_ptr<Registration>& registration, const StateVersion& version,
      CovarianceView view, double damping);
  void RefreshDueResults();
  void WakeReads() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  CovarianceView ViewOf(const std::shared_ptr<const StateVersion>& version) const;
  RegistrationInfo InfoOf(const Registration& registration) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const std::string name_;
  const FactorSpec spec_;
  const std::unique_ptr<const Kind> kind_;
  const FactorEnvironment environment_;
  const ByteGrant state_grant_;
  bool restored_ = false;  // set before anyone else knows of it

  mutable Mutex mutex_;
  uint64_t incarnation_ ABSL_GUARDED_BY(mutex_);
  bool retired_ ABSL_GUARDED_BY(mutex_) = false;
  std::vector<Lane> lanes_ ABSL_GUARDED_BY(mutex_);  // one; under ASYNCHRONOUS one for each tower
  std::vector<Tower> towers_ ABSL_GUARDED_BY(mutex_);
  int active_towers_ ABSL_GUARDED_BY(mutex_);              // under ASYNCHRONOUS
  std::deque<size_t> to_look_at_ ABSL_GUARDED_BY(mutex_);  // lanes whose step may end now
  bool commit_scheduled_ ABSL_GUARDED_BY(mutex_) = false;  // or running: there is one at a time
  absl::Time armed_for_ ABSL_GUARDED_BY(mutex_) = absl::InfiniteFuture();  // the next timer call
  std::atomic<bool> room_scheduled_ = false;
  absl::Time updated_ ABSL_GUARDED_BY(mutex_) = absl::InfinitePast();  // see FactorInfo
  bool in_place_ ABSL_GUARDED_BY(mutex_) = false;  // current_'s matrix is being overwritten
  std::shared_ptr<StateVersion> current_ ABSL_GUARDED_BY(mutex_);
  const bool on_device_;  // where the backend keeps matrices
  std::vector<std::shared_ptr<StateVersion>> older_pinned_ ABSL_GUARDED_BY(mutex_);  // ascending
  ByteGrant pin_reserve_
      ABSL_GUARDED_BY(mutex_);  // for one pinned version, lent to it while pinned
  RegisteredResults results_ ABSL_GUARDED_BY(mutex_);
  std::vector<ImageCallback> images_ ABSL_GUARDED_BY(mutex_);  // that wait for a step to end
  std::map<uint64_t, PendingRead> reads_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_read_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_H_
