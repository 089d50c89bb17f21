#include "server/store/store.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <functional>
#include <map>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/clock.h"
#include "core/error.h"
#include "core/names.h"
#include "google/protobuf/util/json_util.h"
#include "rocksdb/utilities/checkpoint.h"
#include "server/codec.h"
#include "server/log.h"
#include "server/store/direct_file.h"
#include "server/store/disk_error.h"
#include "server/store/failpoint.h"
#include "server/store/records.h"
#include "server/store/tensor_file.h"

namespace fisherd::server {
namespace {

constexpr char kManifest[] = "manifest";
constexpr char kGenerations[] = "generations";
constexpr char kBackups[] = "backups";
constexpr char kTransfers[] = "transfers";

absl::Status MakeDirectory(const std::string& path) {
  std::error_code error;
  std::filesystem::create_directories(path, error);
  if (!error) return absl::OkStatus();
  return DiskFailed(absl::StrCat("cannot make ", path, ": ", error.message()));
}

absl::StatusOr<int> LockDirectory(const std::string& directory) {
  const std::string path = directory + "/LOCK";
  const int lock = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (lock < 0) return ErrnoStatus(absl::StrCat("cannot open ", path));
  if (flock(lock, LOCK_EX | LOCK_NB) == 0) return lock;
  close(lock);
  return absl::FailedPreconditionError(
      absl::StrCat("another fisherd has the data directory ", directory, " open"));
}

// The newest state of a restored factor that is whole somewhere.
struct StatePlace {
  int64_t ended = 0;                      // steps that are in it
  std::optional<store::v1::Place> place;  // of a generation's file
  std::string path;
  std::string logged;  // else its elements, from the log; else it is the initial one
};

// Adds a step of the log to what was before it.
absl::Status Replay(int64_t ended, const store::v1::LoggedStep& step, std::string_view elements,
                    core::FactorImage& image, StatePlace& state) {
  if (ended != image.ended() + 1) {
    return Damaged(absl::StrCat("the log has step ", ended, " after step ", image.ended()));
  }
  if (step.ledger() < 0 || step.ledger() >= std::ssize(image.ledgers)) {
    return Damaged("the log has a step of a tower that there is not");
  }
  const core::StepRun run = FromRecord(step.run());
  image.ledgers[step.ledger()].Record(
      run.outcome, run.outcome == core::StepOutcome::kPartial ? run.counted : std::vector<int>());
  if (run.outcome == core::StepOutcome::kFailed) return absl::OkStatus();
  image.version = FromProto(step.version());
  image.total_weight = step.total_weight();
  image.bound = step.bound();
  image.label = step.label();
  if (step.batch_bytes_size() > 0) return absl::OkStatus();
  state.logged = std::string(elements);
  state.ended = ended;
  return absl::OkStatus();
}

// `state` is in host memory.
absl::Status FillOnHost(const StatePlace& from, core::Matrix& state) {
  if (!from.logged.empty()) {
    if (from.logged.size() != state.bytes().size()) {
      return Damaged("the log has a state of another size");
    }
    std::memcpy(state.bytes().data(), from.logged.data(), from.logged.size());
    return absl::OkStatus();
  }
  return ReadTensor(from.path, *from.place, state);
}

absl::Status FillState(const StatePlace& from, const core::FactorSpec& spec, core::Matrix& state) {
  if (from.logged.empty() && !from.place.has_value()) {
    return state.Fill(spec.initial_covariance == core::InitialCovariance::kOnes ? 1 : 0);
  }
  if (state.device() == nullptr) return FillOnHost(from, state);
  const std::unique_ptr<core::Matrix> host = core::Matrix::New(state.shape());
  if (host == nullptr) return absl::ResourceExhaustedError("no memory for the state");
  if (absl::Status status = FillOnHost(from, *host); !status.ok()) return status;
  return state.CopyFrom(*host);
}

// What a step may have made: anyone can write a file.
absl::Status CheckImported(const core::Matrix& state, const core::FactorImage& image) {
  double largest = 0;
  bool good = std::isfinite(image.total_weight) && image.total_weight >= 0;
  const auto look = [&](auto elements) {
    for (const auto x : elements) {
      good &= x >= 0;  // not NaN
      largest = std::max<double>(largest, x);
    }
  };
  if (state.shape().dtype == core::DataType::kFloat64) {
    look(state.elements<double>());
  } else {
    look(state.elements<float>());
  }
  if (good && std::isfinite(largest) && largest <= image.bound) return absl::OkStatus();
  return core::BadArgument("data", "the covariance has elements that no step could have made");
}

absl::Status GenerationNotFound(const std::string& name, uint64_t number) {
  return core::MakeError(absl::StatusCode::kNotFound, core::reason::kGenerationNotFound,
                         absl::StrCat("factor \"", name, "\" has no generation ", number),
                         {{"factor", name}});
}

}  // namespace

absl::StatusOr<std::unique_ptr<Store>> Store::Open(const Options& options) {
  for (const char* part : {"", kManifest, kGenerations, kBackups, kTransfers}) {
    if (auto s = MakeDirectory(absl::StrCat(options.directory, "/", part)); !s.ok()) return s;
  }
  const auto lock = LockDirectory(options.directory);
  if (!lock.ok()) return lock.status();
  std::unique_ptr<Store> store(new Store(options, *lock));
  auto manifest = Manifest::Open({.directory = absl::StrCat(options.directory, "/", kManifest),
                                  .disk_reserve = options.disk_reserve});
  if (!manifest.ok()) return manifest.status();
  store->manifest_ = *std::move(manifest);
  if (auto s = SyncDirectory(options.directory); !s.ok()) return s;
  Snapshotter::RemoveUnreferenced(*store->manifest_,
                                  absl::StrCat(options.directory, "/", kGenerations));
  std::error_code error;
  std::filesystem::remove_all(absl::StrCat(options.directory, "/", kTransfers), error);
  if (auto s = MakeDirectory(absl::StrCat(options.directory, "/", kTransfers)); !s.ok()) return s;
  return store;
}

Store::~Store() {
  Stop();
  manifest_ = nullptr;
  close(lock_);
}

std::string Store::GenerationPath(uint64_t file) const {
  return absl::StrCat(options_.directory, "/", kGenerations, "/", file, ".safetensors");
}

absl::Status Store::Start(core::FactorRegistry* registry) {
  registry_ = registry;
  const auto dampings = manifest_->ReadDampings();
  if (!dampings.ok()) return dampings.status();
  for (const auto& [name, value] : *dampings) {
    if (auto s = registry->dampings().Set(name, value); !s.ok())
      return Damaged(std::string(s.message()));
  }
  const std::vector<std::string> names = manifest_->names();
  recovery_.Begin(std::ssize(names));
  for (const std::string& name : names) {
    absl::Status status = RestoreFactor(name, *registry);
    if (!status.ok() && !absl::IsDataLoss(status)) return status;
    recovery_.Add(status.ok());
    if (status.ok()) continue;
    LogError("factor ", core::Quote(name), " is damaged: ", status.message());
    registry->Quarantine(name, core::WithMetadata(std::move(status), "factor", name));
  }
  recovery_.Finish();
  core::MutexLock lock(&mutex_);
  snapshotter_ = std::make_shared<Snapshotter>(
      manifest_.get(), registry,
      Snapshotter::Options{.directory = absl::StrCat(options_.directory, "/", kGenerations),
                           .interval = options_.snapshot_interval});
  return absl::OkStatus();
}

void Store::Close() {
  if (const auto snapshotter = OpenSnapshotter(); snapshotter.ok()) {
    VisitFailpoint("shutdown.snapshot");
    if (absl::Status status = (*snapshotter)->Save("", nullptr); !status.ok()) {
      LogError("not everything was saved: ", status.message());
    }
  }
  Stop();
}

void Store::Stop() {
  std::shared_ptr<Snapshotter> snapshotter;
  {
    core::MutexLock lock(&mutex_);
    snapshotter = std::move(snapshotter_);
  }
  snapshotter = nullptr;  // without the lock: a step that ends takes it
  if (manifest_ != nullptr) manifest_->journal().Close();
}

absl::Status Store::RestoreFactor(const std::string& name, core::FactorRegistry& registry) {
  const Manifest::Factor stored = *manifest_->Find(name);
  auto image = ToImage(name, stored.record);
  if (!image.ok()) return image.status();
  StatePlace state;
  if (!stored.generations.empty() &&
      stored.generations.back().version().incarnation() == image->version.incarnation) {
    const store::v1::Generation& newest = stored.generations.back();
    auto saved = ToImage(name, newest);
    if (!saved.ok()) return saved.status();
    saved->plan = image->plan;  // as it is since
    saved->ledgers.resize(std::max(saved->ledgers.size(), image->ledgers.size()));
    saved->results = std::move(image->results);
    *image = *std::move(saved);
    state = {.ended = image->ended(),
             .place = newest.covariance(),
             .path = GenerationPath(newest.file())};
  }
  const uint64_t incarnation = image->version.incarnation;
  const auto replay = [&](int64_t ended, const auto& step, std::string_view elements) {
    return Replay(ended, step, elements, *image, state);
  };
  if (auto s = manifest_->ReadLog(name, incarnation, image->ended(), replay); !s.ok()) return s;
  const auto remember = [&](int ledger, const core::StepRun& run) {
    if (ledger >= std::ssize(image->ledgers)) image->ledgers.resize(ledger + 1);
    if (run.first >= image->ledgers[ledger].next()) image->ledgers[ledger].Remember(run);
    return absl::OkStatus();
  };
  if (auto s = manifest_->ReadOutcomes(name, incarnation, remember); !s.ok()) return s;
  if (absl::Status status = RestoreResults(stored, *image); !status.ok()) return status;
  return registry.Restore(*image, [&](const auto& kind, auto& backend, core::Matrix& matrix) {
    absl::Status status = FillState(state, image->spec, matrix);
    return status.ok() ? AdvanceByLog(*image, state.ended, kind, backend, matrix) : status;
  });
}

// The steps after that state, of which the log has the batches.
absl::Status Store::AdvanceByLog(const core::FactorImage& image, int64_t after,
                                 const core::Kind& kind, core::Backend& backend,
                                 core::Matrix& state) const {
  const auto advance = [&](int64_t, const store::v1::LoggedStep& step, std::string_view bytes) {
    std::vector<std::unique_ptr<core::Batch>> batches;
    std::vector<const core::Batch*> views;
    for (const uint64_t size : step.batch_bytes()) {
      if (size > bytes.size()) return Damaged("a logged batch is cut short");
      batches.push_back(kind.LoadBatch(bytes.substr(0, size)));
      if (batches.back() == nullptr) return Damaged("a logged batch cannot be read");
      views.push_back(batches.back().get());
      bytes.remove_prefix(size);
    }
    if (views.empty()) return absl::OkStatus();  // it FAILED
    const double advanced = kind.Advance({.decay = step.decay(), .weight = step.weight()}, views,
                                         false, state, state, backend);
    if (!std::isnan(advanced)) return absl::OkStatus();
    if (auto s = backend.Check(); !s.ok()) return s;
    return absl::ResourceExhaustedError("no memory for a step of the log");
  };
  return manifest_->ReadLog(image.name, image.version.incarnation, after, advance);
}

// The results that were saved with the state, if they are still registered.
absl::Status Store::RestoreResults(const Manifest::Factor& stored, core::FactorImage& image) const {
  if (stored.generations.empty()) return absl::OkStatus();
  const store::v1::Generation& newest = stored.generations.back();
  for (const store::v1::Result& saved : newest.results()) {
    const auto op = FromRecord(saved.operator_());
    if (!op.ok()) return op.status();
    const auto result = std::find_if(image.results.begin(), image.results.end(),
                                     [&](const core::SavedResult& r) { return r.op == *op; });
    const core::Version version = FromProto(saved.version());
    if (result == image.results.end() || version.incarnation != image.version.incarnation) continue;
    const auto kind = core::MakeKind(image.spec);
    if (!kind.ok()) return Damaged(std::string(kind.status().message()));
    auto cached = std::make_shared<core::CachedResult>();
    cached->matrix = core::Matrix::New((*kind)->state_shape());
    if (cached->matrix == nullptr) continue;  // it is computed anew
    cached->version = version;
    cached->total_weight = saved.total_weight();
    cached->damping = saved.damping();
    // A damaged result is computed anew, too.
    if (!ReadTensor(GenerationPath(newest.file()), saved.place(), *cached->matrix).ok()) continue;
    result->cached = std::move(cached);
  }
  return absl::OkStatus();
}

Store::Stats Store::stats() const {
  Stats stats{.log_bytes = manifest_->log_bytes(),
              .free_bytes = manifest_->journal().free_bytes(),
              .writable = manifest_->journal().CheckWritable().ok(),
              .failed = manifest_->journal().failed()};
  core::MutexLock lock(&mutex_);
  if (snapshotter_ != nullptr) stats.snapshots = snapshotter_->stats();
  return stats;
}

void Store::StepEnded(const std::shared_ptr<core::Factor>& factor) {
  core::MutexLock lock(&mutex_);
  if (snapshotter_ != nullptr) snapshotter_->MarkChanged(factor->name());
}

void Store::WantDurable(const std::string& factor) {
  core::MutexLock lock(&mutex_);
  if (snapshotter_ != nullptr) snapshotter_->Want(factor);
}

// ---- What an operator asks for

absl::StatusOr<std::shared_ptr<Snapshotter>> Store::OpenSnapshotter() const {
  core::MutexLock lock(&mutex_);
  if (snapshotter_ != nullptr) return snapshotter_;
  return core::MakeError(absl::StatusCode::kUnavailable, core::reason::kShuttingDown,
                         "the server shuts down");
}

absl::Status Store::Snapshot(const std::string& prefix, const Snapshotter::Told& told) {
  const auto snapshotter = OpenSnapshotter();
  if (!snapshotter.ok()) return snapshotter.status();
  return (*snapshotter)->Save(prefix, told);
}

absl::StatusOr<std::vector<store::v1::Generation>> Store::Generations(std::string_view name) const {
  if (absl::Status status = core::CheckName("factor", name); !status.ok()) return status;
  const auto factor = manifest_->Find(name);
  if (factor.has_value()) return factor->generations;
  return core::MakeError(absl::StatusCode::kNotFound, core::reason::kFactorNotFound,
                         absl::StrCat("nothing is stored of a factor ", core::Quote(name)),
                         {{"factor", std::string(name)}});
}

// Makes the factor what the image says, saved as a generation of its own.
absl::Status Store::PutSaved(const std::string& name, core::FactorImage image,
                             std::unique_ptr<core::Matrix> state, bool replace) {
  const core::FactorSpec spec = image.spec;
  const auto make = [&](uint64_t incarnation) -> absl::StatusOr<core::FactorRegistry::Content> {
    const auto existing = registry_->Find(name);
    if (existing.ok() && !replace) {
      return core::MakeError(absl::StatusCode::kAlreadyExists, core::reason::kSpecDiffers,
                             absl::StrCat("there is a factor ", core::Quote(name),
                                          "; replace it, or choose another name"));
    }
    image.name = name;
    image.version.incarnation = incarnation;
    image.version.epoch = epoch();
    core::FactorImage life = existing.ok() ? (*existing)->Life() : image;
    for (core::SavedResult& result : life.results) result.cached = nullptr;
    life.version = image.version;
    life.plan = image.plan;
    image.results.clear();
    image.state = std::shared_ptr<const core::Matrix>(state.get(), [](const core::Matrix*) {});
    SavedFactor saved(image);
    const uint64_t file = manifest_->NewFile();
    saved.generation.set_file(file);
    const auto places = WriteFactors(absl::StrCat(options_.directory, "/", kGenerations),
                                     absl::StrCat(file, ".safetensors"), {&saved, 1});
    if (!places.ok()) return places.status();
    auto place = places->begin();
    saved.TakePlaces(place);
    if (absl::Status s = manifest_->RecordFactor(life, saved.generation); !s.ok()) return s;
    image.state = nullptr;
    return core::FactorRegistry::Content{.image = image, .state = std::move(state)};
  };
  // While nothing is removed: the new file is in no generation yet.
  const auto snapshotter = OpenSnapshotter();
  if (!snapshotter.ok()) return snapshotter.status();
  return (*snapshotter)->Run([&] { return registry_->Put(name, spec, make).status(); });
}

absl::Status Store::Restore(const std::string& name, uint64_t number) {
  const auto generations = Generations(name);
  if (!generations.ok()) return generations.status();
  const auto found =
      std::find_if(generations->begin(), generations->end(),
                   [&](const store::v1::Generation& g) { return g.number() == number; });
  if (found == generations->end()) return GenerationNotFound(name, number);
  auto image = ToImage(name, *found);
  if (!image.ok()) return image.status();
  const auto kind = core::MakeKind(image->spec);
  if (!kind.ok()) return Damaged(std::string(kind.status().message()));
  auto state = core::Matrix::New((*kind)->state_shape());
  if (state == nullptr) return absl::ResourceExhaustedError("no memory for the state");
  absl::Status status = ReadTensor(GenerationPath(found->file()), found->covariance(), *state);
  if (!status.ok()) return status;
  return PutSaved(name, *std::move(image), std::move(state), /*replace=*/true);
}

std::string Store::NewTransfer() {
  core::MutexLock lock(&mutex_);
  return absl::StrCat(options_.directory, "/", kTransfers, "/", ++last_transfer_);
}

absl::StatusOr<std::string> Store::Export(const std::string& name) {
  const auto factor = registry_->Find(name);
  if (!factor.ok()) return factor.status();
  auto image = (*factor)->AwaitImage();
  if (!image.ok()) return image.status();
  const SavedFactor saved(*std::move(image));
  const std::filesystem::path path = NewTransfer();
  const auto places = WriteFactors(path.parent_path(), path.filename(), {&saved, 1});
  if (!places.ok()) return places.status();
  return path;
}

absl::StatusOr<std::string> Store::Import(const std::string& path, std::string name, bool replace) {
  const auto header = ReadTensorFileHeader(path);
  if (!header.ok()) return header.status();
  const auto bad = [](const absl::string_view why) {
    return core::BadArgument("data", absl::StrCat("not an exported factor: ", why));
  };
  std::string saved_name;
  store::v1::Generation generation;
  for (const auto& [key, value] : header->metadata) {
    if (!absl::StartsWith(key, FactorMetadataName(""))) continue;
    if (!saved_name.empty()) return bad("it has several factors");
    saved_name = key.substr(FactorMetadataName("").size());
    if (!google::protobuf::util::JsonStringToMessage(value, &generation).ok()) {
      return bad("its metadata cannot be read");
    }
  }
  const auto tensor = header->tensors.find(CovarianceName(saved_name));
  if (saved_name.empty() || tensor == header->tensors.end()) return bad("it has no covariance");
  if (name.empty()) name = saved_name;
  auto image = ToImage(name, generation);
  if (!image.ok()) return bad(image.status().message());
  const auto kind = core::MakeKind(image->spec);
  if (!kind.ok()) return bad(kind.status().message());
  if ((*kind)->state_shape() != tensor->second.shape)
    return bad("its covariance has another shape");
  auto state = core::Matrix::New(tensor->second.shape);
  if (state == nullptr) return absl::ResourceExhaustedError("no memory for the state");
  if (absl::Status s = ReadTensor(path, tensor->second.place, *state); !s.ok()) {
    return bad(s.message());
  }
  if (absl::Status s = CheckImported(*state, *image); !s.ok()) return s;
  if (absl::Status s = PutSaved(name, *std::move(image), std::move(state), replace); !s.ok()) {
    return s;
  }
  return name;
}

absl::StatusOr<std::string> Store::Backup(const std::string& name) {
  if (name.empty() || name == "." || name == ".." || absl::StrContains(name, '/') ||
      absl::EndsWith(name, ".tmp")) {
    return core::BadArgument(
        "name", absl::StrCat("name is ", core::Quote(name), "; expected the name of a folder"));
  }
  const auto snapshotter = OpenSnapshotter();
  if (!snapshotter.ok()) return snapshotter.status();
  if (absl::Status status = (*snapshotter)->Save("", nullptr); !status.ok()) return status;
  const std::string path = absl::StrCat(options_.directory, "/", kBackups, "/", name);
  const absl::Status made = (*snapshotter)->Run([&] { return LinkTo(path); });
  if (!made.ok()) return made;
  return path;
}

// A data directory at `path`: a checkpoint of the manifest, and links to the files. While none of
// them is removed.
absl::Status Store::LinkTo(const std::string& path) {
  std::error_code error;
  if (std::filesystem::exists(path, error)) {
    return core::MakeError(absl::StatusCode::kAlreadyExists, core::reason::kBadArgument,
                           absl::StrCat("there is a backup ", path), {{"field", "name"}});
  }
  const std::string temporary = path + ".tmp";
  std::filesystem::remove_all(temporary, error);
  if (auto s = MakeDirectory(absl::StrCat(temporary, "/", kGenerations)); !s.ok()) return s;
  rocksdb::Checkpoint* made = nullptr;
  rocksdb::Status rocks = rocksdb::Checkpoint::Create(manifest_->database(), &made);
  const std::unique_ptr<rocksdb::Checkpoint> checkpoint(made);
  if (rocks.ok()) rocks = checkpoint->CreateCheckpoint(absl::StrCat(temporary, "/", kManifest));
  if (!rocks.ok()) return DiskFailed(absl::StrCat("cannot copy the manifest: ", rocks.ToString()));
  for (const auto& entry : std::filesystem::directory_iterator(
           absl::StrCat(options_.directory, "/", kGenerations), error)) {
    std::filesystem::create_hard_link(
        entry.path(),
        absl::StrCat(temporary, "/", kGenerations, "/", entry.path().filename().string()), error);
    if (error) return DiskFailed(absl::StrCat("cannot link ", entry.path().string()));
  }
  for (const std::string& directory : {absl::StrCat(temporary, "/", kGenerations), temporary}) {
    if (auto s = SyncDirectory(directory); !s.ok()) return s;
  }
  std::filesystem::rename(temporary, path, error);
  if (error) return DiskFailed(absl::StrCat("cannot rename ", temporary));
  return SyncDirectory(absl::StrCat(options_.directory, "/", kBackups));
}

}  // namespace fisherd::server
