#include "server/store/manifest.h"

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <future>
#include <memory>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/batch_reader.h"
#include "rocksdb/options.h"
#include "server/log.h"
#include "server/store/disk_error.h"
#include "server/store/records.h"

namespace fisherd::server {
namespace {

constexpr char kLogFamily[] = "log";

absl::Status FromRocks(const rocksdb::Status& status, const std::string& what) {
  if (status.ok()) return absl::OkStatus();
  const std::string text = absl::StrCat(what, ": ", status.ToString());
  if (status.IsCorruption()) return Damaged(text);
  if (status.subcode() == rocksdb::Status::kNoSpace) return DiskFull(text);
  return DiskFailed(text);
}

// RocksDB's errors in the server's own log; it writes no log of its own, whose disk may be the one
// that fails.
class RocksLogger : public rocksdb::Logger {
 public:
  RocksLogger() : Logger(rocksdb::InfoLogLevel::ERROR_LEVEL) {}
  using Logger::Logv;
  void Logv(const char* format, va_list arguments) override {
    char text[512];
    vsnprintf(text, sizeof(text), format, arguments);
    LogWarning("the manifest's database: ", text);
  }
};

rocksdb::DBOptions DatabaseOptions(rocksdb::Env* environment) {
  rocksdb::DBOptions options;
  options.env = environment;
  options.create_if_missing = true;
  options.create_missing_column_families = true;
  // Only what a crash cut off at the log's end may be missing: what was synced before it may not.
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  options.track_and_verify_wals_in_manifest = true;
  options.info_log = std::make_shared<RocksLogger>();
  options.stats_dump_period_sec = 0;
  options.max_background_jobs = 2;
  options.max_open_files = 128;
  return options;
}

rocksdb::ColumnFamilyOptions RecordOptions() {
  rocksdb::ColumnFamilyOptions options;
  options.write_buffer_size = 8 << 20;
  return options;
}

// States of some MiB each, which go soon: kept out of the trees that are merged.
rocksdb::ColumnFamilyOptions LogOptions() {
  rocksdb::ColumnFamilyOptions options;
  options.write_buffer_size = 64 << 20;
  options.enable_blob_files = true;
  options.min_blob_size = 4096;
  options.enable_blob_garbage_collection = true;
  options.blob_garbage_collection_age_cutoff = 1.0;
  return options;
}

void DeleteKeys(rocksdb::WriteBatch& batch, rocksdb::ColumnFamilyHandle* family,
                const KeyRange& keys) {
  batch.DeleteRange(family, keys.first, keys.last);
}

template <typename Message>
absl::Status Parse(const rocksdb::Slice& value, Message& message) {
  if (message.ParseFromArray(value.data(), static_cast<int>(value.size()))) return absl::OkStatus();
  return Damaged("a record of the manifest cannot be read");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Manifest>> Manifest::Open(const Options& options) {
  std::unique_ptr<Manifest> manifest(new Manifest(options));
  for (const auto step : {&Manifest::OpenDatabase, &Manifest::LoadMeta, &Manifest::LoadFactors}) {
    if (absl::Status status = ((*manifest).*step)(); !status.ok()) return status;
  }
  manifest->journal_ = std::make_unique<Journal>(
      manifest->database_.get(),
      Journal::Options{.directory = options.directory,
                       .reserve = options.disk_reserve,
                       .blocked = [files = manifest->file_system_] { return files->blocked(); }});
  // The epoch is on disk before anyone hears of it.
  absl::Status status = manifest->journal_->Write(
      "meta", [&](rocksdb::WriteBatch& batch) { manifest->AddMeta(batch); });
  if (!status.ok()) return status;
  return manifest;
}

Manifest::~Manifest() {
  if (journal_ != nullptr) journal_->Close();
  // RocksDB would abort on closing a log whose last write has failed: it ends with the process.
  const bool failed = journal_ != nullptr && journal_->failed();
  journal_ = nullptr;
  if (failed) {
    database_.release();
    environment_.release();
    return;
  }
  for (rocksdb::ColumnFamilyHandle* family : {records_, log_}) {
    if (family != nullptr) database_->DestroyColumnFamilyHandle(family);
  }
}

absl::Status Manifest::OpenDatabase() {
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  rocksdb::DB* database = nullptr;
  const rocksdb::Status status = rocksdb::DB::Open(
      DatabaseOptions(environment_.get()), options_.directory,
      {{rocksdb::kDefaultColumnFamilyName, RecordOptions()}, {kLogFamily, LogOptions()}}, &families,
      &database);
  if (!status.ok()) return FromRocks(status, absl::StrCat("cannot open ", options_.directory));
  database_.reset(database);
  records_ = families[0];
  log_ = families[1];
  return absl::OkStatus();
}

absl::Status Manifest::LoadMeta() {
  std::string value;
  const rocksdb::Status status = database_->Get({}, records_, kMetaKey, &value);
  if (!status.ok() && !status.IsNotFound()) return FromRocks(status, "cannot read the manifest");
  store::v1::Meta meta;
  if (status.ok()) {
    if (absl::Status parsed = Parse(value, meta); !parsed.ok()) return parsed;
    if (meta.format_version() < 1 || meta.format_version() > kFormatVersion) {
      return absl::FailedPreconditionError(
          absl::StrCat("the data directory has format ", meta.format_version(),
                       ", and this fisherd knows formats 1 to ", kFormatVersion));
    }
  }
  epoch_ = meta.epoch() + 1;
  first_incarnation_ = meta.incarnation() + 1;
  core::MutexLock lock(&mutex_);
  last_incarnation_ = meta.incarnation();
  return absl::OkStatus();
}

absl::Status Manifest::LoadFactors() {
  core::MutexLock lock(&mutex_);
  const std::unique_ptr<rocksdb::Iterator> it(database_->NewIterator({}, records_));
  for (it->SeekToFirst(); it->Valid(); it->Next()) {
    const std::string_view key(it->key().data(), it->key().size());
    const ParsedKey parsed = ParseKey(key.substr(1));
    if (key[0] == 'f') {
      if (auto s = Parse(it->value(), factors_[std::string(parsed.name)].record); !s.ok()) return s;
    } else if (key[0] == 'g') {
      store::v1::Generation generation;
      if (auto s = Parse(it->value(), generation); !s.ok()) return s;
      Reference(generation, 1);
      factors_[std::string(parsed.name)].generations.push_back(std::move(generation));
    } else if (key[0] == 'o') {
      factors_[std::string(parsed.name)].has_outcomes = true;
    }
  }
  if (auto s = FromRocks(it->status(), "cannot read the manifest"); !s.ok()) return s;
  for (auto& [name, factor] : factors_) {
    if (factor.record.incarnation() == 0) return Damaged(absl::StrCat("no record of ", name));
    factor.has_log = true;  // for all that is known
  }
  return absl::OkStatus();
}

void Manifest::AddMeta(rocksdb::WriteBatch& batch) const {
  store::v1::Meta meta;
  meta.set_format_version(kFormatVersion);
  meta.set_epoch(epoch_);
  {
    core::MutexLock lock(&mutex_);
    meta.set_incarnation(last_incarnation_);
  }
  batch.Put(records_, kMetaKey, meta.SerializeAsString());
}

// ---- What there is

std::vector<std::string> Manifest::names() const {
  core::MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (const auto& [name, factor] : factors_) names.push_back(name);
  return names;
}

std::optional<Manifest::Factor> Manifest::Find(std::string_view name) const {
  core::MutexLock lock(&mutex_);
  const auto found = factors_.find(name);
  return found == factors_.end() ? std::nullopt : std::optional(found->second);
}

bool Manifest::IsReferenced(uint64_t file) const {
  core::MutexLock lock(&mutex_);
  return files_.contains(file);
}

uint64_t Manifest::NewFile() {
  core::MutexLock lock(&mutex_);
  return ++last_file_;
}

int64_t Manifest::log_bytes() const {
  core::MutexLock lock(&mutex_);
  return log_bytes_;
}

absl::StatusOr<std::vector<std::pair<std::string, double>>> Manifest::ReadDampings() const {
  std::vector<std::pair<std::string, double>> dampings;
  const std::unique_ptr<rocksdb::Iterator> it(database_->NewIterator({}, records_));
  for (it->Seek("d"); it->Valid() && it->key()[0] == 'd'; it->Next()) {
    store::v1::Damping damping;
    if (auto s = Parse(it->value(), damping); !s.ok()) return s;
    dampings.emplace_back(it->key().ToString().substr(1), damping.value());
  }
  if (auto s = FromRocks(it->status(), "cannot read dampings"); !s.ok()) return s;
  return dampings;
}

absl::Status Manifest::ReadOutcomes(
    std::string_view name, uint64_t incarnation,
    const std::function<absl::Status(int ledger, const core::StepRun& run)>& use) const {
  const KeyRange keys = KeysOf('o', name);
  const std::unique_ptr<rocksdb::Iterator> it(database_->NewIterator({}, records_));
  for (it->Seek(keys.first); it->Valid() && it->key().compare(keys.last) < 0; it->Next()) {
    const std::string_view key(it->key().data(), it->key().size());
    const std::string_view rest = ParseKey(key.substr(1)).rest;
    if (rest.size() != 20) return Damaged("a key of an outcome that cannot be");
    if (BigEndian(rest.substr(0, 8)) != incarnation) continue;
    store::v1::Run run;
    if (auto s = Parse(it->value(), run); !s.ok()) return s;
    const int ledger = static_cast<int>(BigEndian(rest.substr(8, 4)));
    if (auto s = use(ledger, FromRecord(run)); !s.ok()) return s;
  }
  return FromRocks(it->status(), "cannot read the outcomes of " + std::string(name));
}

absl::Status Manifest::ReadLog(
    std::string_view name, uint64_t incarnation, int64_t after,
    const std::function<absl::Status(int64_t ended, const store::v1::LoggedStep& step,
                                     std::string_view bytes)>& use) const {
  const std::unique_ptr<rocksdb::Iterator> it(database_->NewIterator({}, log_));
  const std::string last = LogKey(name, incarnation + 1, 0);
  for (it->Seek(LogKey(name, incarnation, after + 1)); it->Valid() && it->key().compare(last) < 0;
       it->Next()) {
    const std::string_view key(it->key().data(), it->key().size());
    const std::string_view value(it->value().data(), it->value().size());
    uint32_t length = 0;
    if (value.size() < sizeof(length)) return Damaged("a logged step is cut short");
    std::memcpy(&length, value.data(), sizeof(length));
    if (length > value.size() - sizeof(length)) return Damaged("a logged step is cut short");
    store::v1::LoggedStep step;
    if (auto s = Parse({value.data() + sizeof(length), length}, step); !s.ok()) return s;
    const std::string_view state = value.substr(sizeof(length) + length);
    if (core::Crc32c(0, std::as_bytes(std::span(state))) != step.crc32c()) {
      return Damaged("a logged step is not as it was written");
    }
    if (auto s = use(static_cast<int64_t>(BigEndian(key.substr(key.size() - 8))), step, state);
        !s.ok()) {
      return s;
    }
  }
  return FromRocks(it->status(), "cannot read the log of " + std::string(name));
}

// ---- What happens

void Manifest::Reference(const store::v1::Generation& generation, int count) {
  last_file_ = std::max(last_file_, generation.file());
  int& references = files_[generation.file()];
  references += count;
  if (references == 0) files_.erase(generation.file());
}

absl::Status Manifest::RecordFactor(const core::FactorImage& life) {
  return Record(life, std::nullopt);
}

absl::Status Manifest::RecordFactor(const core::FactorImage& life,
                                    store::v1::Generation generation) {
  return Record(life, std::move(generation));
}

absl::Status Manifest::Record(const core::FactorImage& life,
                              std::optional<store::v1::Generation> generation) {
  std::promise<absl::Status> written;
  {
    core::MutexLock lock(&mutex_);
    Factor& factor = factors_[life.name];
    const bool anew = factor.record.incarnation() != life.version.incarnation;
    const bool clear = anew && factor.record.incarnation() != 0;
    factor.record = ToRecord(life);
    last_incarnation_ = std::max(last_incarnation_, life.version.incarnation);
    std::vector<uint64_t> dropped;
    if (generation.has_value()) {
      AddGeneration(factor, *generation);
      generation = factor.generations.back();
      while (factor.generations.size() > kKeptGenerations) {
        dropped.push_back(factor.generations.front().number());
        Reference(factor.generations.front(), -1);
        factor.generations.erase(factor.generations.begin());
      }
    }
    journal_->Append(
        "life",
        [this, name = life.name, record = factor.record, generation, clear,
         dropped](rocksdb::WriteBatch& batch) {
          AddMeta(batch);
          if (clear) {
            DeleteKeys(batch, records_, KeysOf('o', name));
            DeleteKeys(batch, log_, KeysOf('l', name));
          }
          batch.Put(records_, FactorKey(name), record.SerializeAsString());
          for (const uint64_t number : dropped) batch.Delete(records_, GenerationKey(name, number));
          if (generation.has_value()) {
            batch.Put(records_, GenerationKey(name, generation->number()),
                      generation->SerializeAsString());
          }
        },
        [&](absl::Status status) { written.set_value(std::move(status)); });
  }
  return written.get_future().get();
}

absl::Status Manifest::RecordDeletion(std::string_view name) {
  std::promise<absl::Status> written;
  {
    core::MutexLock lock(&mutex_);
    if (const auto found = factors_.find(name); found != factors_.end()) {
      for (const auto& generation : found->second.generations) Reference(generation, -1);
      log_bytes_ -= found->second.log_bytes;
      factors_.erase(found);
    }
    journal_->Append(
        "life",
        [this, name = std::string(name)](rocksdb::WriteBatch& batch) {
          batch.Delete(records_, FactorKey(name));
          DeleteKeys(batch, records_, KeysOf('g', name));
          DeleteKeys(batch, records_, KeysOf('o', name));
          DeleteKeys(batch, log_, KeysOf('l', name));
        },
        [&](absl::Status status) { written.set_value(std::move(status)); });
  }
  return written.get_future().get();
}

absl::Status Manifest::RecordDamping(std::string_view name, std::optional<double> value) {
  return journal_->Write("life", [&](rocksdb::WriteBatch& batch) {
    if (!value.has_value()) {
      batch.Delete(records_, DampingKey(name));
      return;
    }
    store::v1::Damping damping;
    damping.set_value(*value);
    batch.Put(records_, DampingKey(name), damping.SerializeAsString());
  });
}

void Manifest::RecordOutcome(const std::string& factor, uint64_t incarnation, int ledger,
                             const core::StepRun& run, Journal::Done done) {
  core::MutexLock lock(&mutex_);
  if (const auto found = factors_.find(factor); found != factors_.end()) {
    found->second.has_outcomes = true;
  }
  journal_->Append(
      "outcome",
      [this, key = OutcomeKey(factor, incarnation, ledger, run.first),
       value = ToRecord(run).SerializeAsString()](rocksdb::WriteBatch& batch) {
        batch.Put(records_, key, value);
      },
      std::move(done));
}

void Manifest::LogStep(core::StepRecord step, Journal::Done done) {
  store::v1::LoggedStep record = ToRecord(step);
  std::vector<rocksdb::Slice> parts(1);  // the first is the record
  std::shared_ptr<const core::Matrix> state;
  if (step.state != nullptr) {
    auto host = core::OnHost({std::shared_ptr<void>(), step.state});
    if (!host.ok()) return done(host.status());
    state = *std::move(host);
    const auto bytes = state->bytes();
    parts.emplace_back(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  for (const std::string& batch : step.batches) parts.emplace_back(batch);
  uint32_t crc = 0;
  int64_t size = 0;
  for (size_t i = 1; i < parts.size(); ++i) {
    crc = core::Crc32c(crc, std::as_bytes(std::span(parts[i].data(), parts[i].size())));
    size += static_cast<int64_t>(parts[i].size());
  }
  record.set_crc32c(crc);
  const std::string text = record.SerializeAsString();
  const auto length = static_cast<uint32_t>(text.size());
  core::MutexLock lock(&mutex_);
  if (const auto found = factors_.find(step.factor); found != factors_.end()) {
    found->second.has_log = true;
    found->second.log_bytes += size;
    log_bytes_ += size;
  }
  journal_->Append(
      "log",
      [this, key = LogKey(step.factor, step.incarnation, step.ended),
       head = std::string(reinterpret_cast<const char*>(&length), sizeof(length)) + text,
       batches = std::move(step.batches), parts](rocksdb::WriteBatch& batch) mutable {
        const rocksdb::Slice key_parts[] = {key};
        parts[0] = head;
        for (size_t i = 0; i < batches.size(); ++i) parts[i + 1] = batches[i];
        batch.Put(log_, rocksdb::SliceParts(key_parts, 1),
                  rocksdb::SliceParts(parts.data(), static_cast<int>(parts.size())));
      },
      std::move(done));
}

void Manifest::AddGeneration(Factor& factor, store::v1::Generation generation) {
  generation.set_number(factor.generations.empty() ? 1 : factor.generations.back().number() + 1);
  Reference(generation, 1);
  factor.generations.push_back(std::move(generation));
}

absl::StatusOr<std::vector<bool>> Manifest::CommitGenerations(
    std::vector<NamedGeneration> generations) {
  std::vector<bool> committed(generations.size(), false);
  std::promise<absl::Status> written;
  {
    core::MutexLock lock(&mutex_);
    std::vector<std::function<void(rocksdb::WriteBatch&)>> fills;
    for (size_t i = 0; i < generations.size(); ++i) {
      const std::string& name = generations[i].name;
      const auto found = factors_.find(name);
      const uint64_t incarnation = generations[i].generation.version().incarnation();
      if (found == factors_.end() || found->second.record.incarnation() != incarnation) continue;
      committed[i] = true;
      Factor& factor = found->second;
      AddGeneration(factor, std::move(generations[i].generation));
      std::vector<uint64_t> dropped;
      while (factor.generations.size() > kKeptGenerations) {
        dropped.push_back(factor.generations.front().number());
        Reference(factor.generations.front(), -1);
        factor.generations.erase(factor.generations.begin());
      }
      const bool has_outcomes = factor.has_outcomes;
      const bool has_log = factor.has_log;
      fills.push_back([this, name, incarnation, dropped, has_outcomes, has_log,
                       ended = generations[i].ended,
                       generation = factor.generations.back()](rocksdb::WriteBatch& batch) {
        batch.Put(records_, GenerationKey(name, generation.number()),
                  generation.SerializeAsString());
        for (const uint64_t number : dropped) batch.Delete(records_, GenerationKey(name, number));
        for (int ledger = 0; has_outcomes && ledger < generation.ledgers_size(); ++ledger) {
          DeleteKeys(batch, records_,
                     {OutcomeKey(name, incarnation, ledger, 0),
                      OutcomeKey(name, incarnation, ledger, generation.ledgers(ledger).next())});
        }
        if (has_log) {
          DeleteKeys(batch, log_, {LogKey(name, 0, 0), LogKey(name, incarnation, ended + 1)});
        }
      });
      factor.has_log =
          factor.has_log && factor.record.spec().durability() == fisherd::v1::DURABILITY_LEVEL_SYNC;
      log_bytes_ -= std::exchange(factor.log_bytes, 0);
    }
    journal_->Append(
        "generation",
        [fills = std::move(fills)](rocksdb::WriteBatch& batch) {
          for (const auto& fill : fills) fill(batch);
        },
        [&](absl::Status status) { written.set_value(std::move(status)); });
  }
  journal_->Help();
  if (absl::Status status = written.get_future().get(); !status.ok()) return status;
  return committed;
}

}  // namespace fisherd::server
