// What a data directory holds but for tensors: which factors there are, where their states are, and
// what was told of steps since.

#ifndef FISHERD_SERVER_STORE_MANIFEST_H_
#define FISHERD_SERVER_STORE_MANIFEST_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "core/factor_store.h"
#include "core/mutex.h"
#include "fisherd/store/v1/records.pb.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "server/store/journal.h"
#include "server/store/patient_file_system.h"

namespace fisherd::server {

inline constexpr uint32_t kFormatVersion = 1;
// Of each factor, so many generations are kept.
inline constexpr size_t kKeptGenerations = 2;

// Records in RocksDB, written by a journal; an index of factors and generations in memory. Thread-
// safe. What returns a status has reached the disk when it is OK.
class Manifest {
 public:
  struct Options {
    std::string directory;  // made if there is none
    int64_t disk_reserve = 0;
  };
  // Takes an epoch of its own, which is on disk. FAILED_PRECONDITION for a later format; DATA_LOSS
  // if the records are damaged; as in disk_error.h for other trouble.
  static absl::StatusOr<std::unique_ptr<Manifest>> Open(const Options& options);
  ~Manifest();

  uint64_t epoch() const { return epoch_; }
  uint64_t first_incarnation() const { return first_incarnation_; }
  Journal& journal() { return *journal_; }
  const Journal& journal() const { return *journal_; }
  rocksdb::DB* database() { return database_.get(); }

  // ---- What there is

  struct Factor {
    store::v1::Factor record;
    std::vector<store::v1::Generation> generations;  // ascending by number
    bool has_outcomes = false;
    bool has_log = false;
    int64_t log_bytes = 0;  // since the last generation, about
  };
  std::vector<std::string> names() const;
  std::optional<Factor> Find(std::string_view name) const;
  // Every file that a generation is in.
  bool IsReferenced(uint64_t file) const;
  uint64_t NewFile();
  absl::StatusOr<std::vector<std::pair<std::string, double>>> ReadDampings() const;
  // In their order; each is given to `use`, whose error ends it. DATA_LOSS for records that cannot
  // be.
  absl::Status ReadOutcomes(
      std::string_view name, uint64_t incarnation,
      const std::function<absl::Status(int ledger, const core::StepRun& run)>& use) const;
  absl::Status ReadLog(
      std::string_view name, uint64_t incarnation, int64_t after,
      const std::function<absl::Status(int64_t ended, const store::v1::LoggedStep& step,
                                       std::string_view bytes)>& use) const;
  // Bytes of states that were logged and that no generation covers yet.
  int64_t log_bytes() const;

  // ---- What happens

  absl::Status RecordFactor(const core::FactorImage& life);
  // The same under a new incarnation, whose state is a generation.
  absl::Status RecordFactor(const core::FactorImage& life, store::v1::Generation generation);
  absl::Status RecordDeletion(std::string_view name);
  absl::Status RecordDamping(std::string_view name, std::optional<double> value);
  void RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                     const core::StepRun& run, Journal::Done done);
  void LogStep(core::StepRecord step, Journal::Done done);

  struct NamedGeneration {
    std::string name;
    store::v1::Generation generation;  // without a number
    int64_t ended = 0;                 // steps of its incarnation, of all ledgers
  };
  // One commit for all of them: each takes the place of the oldest that is kept, and of outcomes
  // and logged steps that it covers. Those whose incarnation has ended are left out: the answer
  // says for each whether it is in.
  absl::StatusOr<std::vector<bool>> CommitGenerations(std::vector<NamedGeneration> generations);

 private:
  explicit Manifest(Options options) : options_(std::move(options)) {}
  absl::Status OpenDatabase();
  absl::Status LoadMeta();
  absl::Status LoadFactors();
  void AddMeta(rocksdb::WriteBatch& batch) const;
  absl::Status Record(const core::FactorImage& life,
                      std::optional<store::v1::Generation> generation);
  void AddGeneration(Factor& factor, store::v1::Generation generation)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Reference(const store::v1::Generation& generation, int count)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const Options options_;
  const std::shared_ptr<PatientFileSystem> file_system_ = std::make_shared<PatientFileSystem>();
  std::unique_ptr<rocksdb::Env> environment_ = rocksdb::NewCompositeEnv(file_system_);
  std::unique_ptr<rocksdb::DB> database_;
  rocksdb::ColumnFamilyHandle* records_ = nullptr;
  rocksdb::ColumnFamilyHandle* log_ = nullptr;
  std::unique_ptr<Journal> journal_;
  uint64_t epoch_ = 0;
  uint64_t first_incarnation_ = 1;

  // Held while a record is made and appended, so that the journal has them in the index's order.
  mutable core::Mutex mutex_;
  uint64_t last_incarnation_ ABSL_GUARDED_BY(mutex_) = 0;
  uint64_t last_file_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t log_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, Factor, std::less<>> factors_ ABSL_GUARDED_BY(mutex_);
  std::map<uint64_t, int> files_ ABSL_GUARDED_BY(mutex_);  // generations that each is of
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_MANIFEST_H_
