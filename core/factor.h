// One named factor: a kind's state, the steps that advance it, and the reads of it, behind one
// lock.

#ifndef FISHERD_CORE_FACTOR_H_
#define FISHERD_CORE_FACTOR_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/backend.h"
#include "core/batch_header.h"
#include "core/batch_reader.h"
#include "core/byte_budget.h"
#include "core/commit_record.h"
#include "core/compute_pool.h"
#include "core/damping_table.h"
#include "core/factor_spec.h"
#include "core/kinds/kind.h"
#include "core/ledger.h"
#include "core/linear_operator.h"
#include "core/mutex.h"
#include "core/registered_results.h"
#include "core/step_gather.h"
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
  uint64_t epoch = 0;  // the server's start number
  int window = 4;      // open steps per factor
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

// Where a factor stands, as a stream needs it for `opened` and `ack`.
struct Progress {
  uint64_t incarnation = 0;
  uint64_t epoch = 0;
  int towers = 0;
  int64_t next = 1;
  int64_t durable = 0;
  int64_t open_through = 0;
  int window = 0;
  std::vector<StepRun> missed;
  bool deleted = false;
};

// Who feeds a tower: a stream.
class ProgressListener {
 public:
  virtual ~ProgressListener() = default;
  // A step of the factor has ended, or the factor's incarnation, by reset or deletion; or another
  // client has taken over a tower. Called without locks, never at once for one factor; must not
  // block.
  virtual void OnProgress(const std::shared_ptr<Factor>& factor) = 0;
};

// A batch on its way in. Filled by one thread; abandoned when it goes before Complete.
class PendingBatch {
 public:
  ~PendingBatch();
  PendingBatch(const PendingBatch&) = delete;
  PendingBatch& operator=(const PendingBatch&) = delete;

  BatchReader& reader() { return reader_; }

  // The batch is whole: `rows` is the sender's count of them. Hands it to its step, which commits
  // when all towers' batches are there. FAILED_PRECONDITION (OLD_INCARNATION, TOWER_CLAIMED) if the
  // step no longer wants it.
  absl::Status Complete(int64_t rows);

 private:
  friend class Factor;
  PendingBatch(std::shared_ptr<Factor> factor, const BatchHeader& header, StepGather::Ticket ticket,
               std::unique_ptr<Batch> batch);

  const std::shared_ptr<Factor> factor_;
  const uint64_t incarnation_;
  const int64_t step_;
  const int tower_;
  const uint64_t label_;
  const StepGather::Ticket ticket_;
  BatchReader reader_;
  bool done_ = false;
};

// Waits until `step` of `incarnation` has ended.
struct MinVersion {
  uint64_t incarnation = 0;
  int64_t step = 0;
};

struct ReadRequest {
  OperatorSpec op;
  DataType dtype = DataType::kUnspecified;  // of the elements wanted; the state's if unspecified
  std::optional<Version> if_version_not;
  std::optional<MinVersion> min_version;
  // A registered result is computed anew unless it is of the current version and λ, whatever its
  // policy.
  bool refresh = false;
};

struct ReadResult {
  Version version;          // that the operator reflects
  Version current_version;  // of the factor when it was answered
  int64_t steps_committed = 0;
  int64_t next = 1;
  double total_weight = 0;
  std::optional<double> damping;  // absent for the covariance
  bool cached = false;
  // Null if the version is the one that if_version_not named. Holding it pins the version.
  std::shared_ptr<const LinearOperator> op;
};

using ReadCallback = std::function<void(absl::StatusOr<ReadResult>)>;

struct RegistrationInfo {
  OperatorSpec op;
  RefreshPolicy policy;
  std::optional<Version> computed_from;
  std::optional<double> damping;
};

struct TowerInfo {
  bool claimed = false;
  int64_t received_through = 0;
};

struct FactorInfo {
  std::string name;
  FactorSpec spec;
  MatrixShape shape;
  Version version;
  int64_t steps_committed = 0;
  int64_t steps_failed = 0;
  int64_t next = 1;
  int64_t durable = 0;
  double total_weight = 0;
  uint64_t label = 0;
  int64_t state_bytes = 0;
  int64_t pinned_bytes = 0;
  int64_t result_bytes = 0;
  int64_t estimated_bytes = 0;
  int held_batches = 0;
  int64_t held_bytes = 0;
  std::vector<TowerInfo> towers;
  std::vector<RegistrationInfo> registrations;
};

// Thread-safe. Nothing blocks but short sections under the lock: commits and the computing for
// reads run on the pool. Always held by shared_ptr: streams, reads and commits keep it alive beyond
// its deletion.
class Factor : public std::enable_shared_from_this<Factor> {
 public:
  // Allocates the state. INVALID_ARGUMENT for a bad specification; RESOURCE_EXHAUSTED
  // (STATE_BUDGET), before anything is allocated, with the estimate in the message.
  static absl::StatusOr<std::shared_ptr<Factor>> Create(std::string name, const FactorSpec& spec,
                                                        uint64_t incarnation,
                                                        const FactorEnvironment& environment);

  const std::string& name() const { return name_; }
  const FactorSpec& spec() const { return spec_; }
  const Kind& kind() const { return *kind_; }

  // --- Updates (SPEC §5) ---

  // Claims a tower for a client's stream, and keeps `stream` until Close. `from` is the lowest step
  // that the client can still send (0: it is new). Another client's claim stands while its stream
  // lives, unless take_over; when it falls, that client's batches of steps that have not ended are
  // dropped.
  //   OUT_OF_RANGE for the tower, or if `from` is beyond the next step; FAILED_PRECONDITION
  //   (TOWER_CLAIMED)
  absl::StatusOr<Progress> Open(int tower, const ClientId& client, int64_t from, bool take_over,
                                std::shared_ptr<ProgressListener> stream);

  // The stream has ended: its claims no longer stand against others.
  void Close(const ProgressListener* stream);

  // Asks to send a batch. Null if it is counted or held already: to be read and discarded. Errors
  // as in SPEC §6, each naming the field.
  absl::StatusOr<std::unique_ptr<PendingBatch>> Begin(const BatchHeader& header,
                                                      const ProgressListener* stream);

  // Where the factor stands; `missed` from step `missed_from` on.
  Progress GetProgress(int64_t missed_from) const;

  // The tower is this stream's.
  bool IsOwner(int tower, const ProgressListener* stream) const;

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

  // --- Life ---

  // Back to the initial covariance and step 1. Batches and waiting reads get OLD_INCARNATION.
  absl::Status Reset(uint64_t incarnation);
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
    int64_t from = 0;
    std::shared_ptr<ProgressListener> stream;  // null: not claimed
    bool known = false;                        // `client` has a meaning
  };
  struct OpenStep {
    int64_t share = 0;  // bytes reserved for each tower
    std::vector<ByteGrant> grants;
    std::vector<std::unique_ptr<Batch>> batches;  // by tower; null until whole
    uint64_t label = 0;
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
  struct Commit {
    StepParameters parameters;
    OpenStep step;
    std::shared_ptr<StateVersion> from;
    std::shared_ptr<StateVersion>
        to;            // `from` itself if nobody holds it; null if there is no memory
    double bound = 0;  // of the result; not finite if it may overflow
    double total_weight = 0;
  };

  Factor(std::string name, const FactorSpec& spec, std::unique_ptr<const Kind> kind,
         uint64_t incarnation, const FactorEnvironment& environment, ByteGrant state_grant,
         ByteGrant pin_reserve);

  // Null if there is no memory.
  std::shared_ptr<StateVersion> InitialVersion(uint64_t incarnation) const;
  absl::Status OldIncarnation(uint64_t incarnation) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  FactorEvent EventLocked(FactorEventKind kind) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  Progress ProgressLocked(int64_t missed_from) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  using Listeners = std::set<std::shared_ptr<ProgressListener>>;
  Listeners ListenersLocked() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Notify(const Listeners& listeners);

  // factor_update.cc: batches in, steps out.
  absl::Status CheckHeader(const BatchHeader& header, const ProgressListener* stream) const
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status ReserveBatch(int64_t step, int64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void CloseEmptySteps() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  absl::Status CompleteBatch(const PendingBatch& pending, std::unique_ptr<Batch> batch);
  void AbandonBatch(const PendingBatch& pending);
  void ScheduleCommit() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void RunCommit();
  std::optional<Commit> TakeCommit();
  double Compute(const Commit& commit) const;
  bool Publish(Commit& commit, double bound);

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

  mutable Mutex mutex_;
  uint64_t incarnation_ ABSL_GUARDED_BY(mutex_);
  bool retired_ ABSL_GUARDED_BY(mutex_) = false;
  StepGather gather_ ABSL_GUARDED_BY(mutex_);
  Ledger ledger_ ABSL_GUARDED_BY(mutex_);
  std::vector<Tower> towers_ ABSL_GUARDED_BY(mutex_);
  std::map<int64_t, OpenStep> open_steps_ ABSL_GUARDED_BY(mutex_);
  bool commit_scheduled_ ABSL_GUARDED_BY(mutex_) = false;  // or running: there is one at a time
  bool in_place_ ABSL_GUARDED_BY(mutex_) = false;          // current_'s matrix is being overwritten
  std::shared_ptr<StateVersion> current_ ABSL_GUARDED_BY(mutex_);
  std::vector<std::shared_ptr<StateVersion>> older_pinned_ ABSL_GUARDED_BY(mutex_);  // ascending
  ByteGrant pin_reserve_
      ABSL_GUARDED_BY(mutex_);  // for one pinned version, lent to it while pinned
  RegisteredResults results_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, PendingRead> reads_ ABSL_GUARDED_BY(mutex_);
  uint64_t last_read_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_FACTOR_H_
