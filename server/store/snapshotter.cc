#include "server/store/snapshotter.h"

#include <algorithm>
#include <filesystem>
#include <optional>
#include <system_error>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "absl/time/clock.h"
#include "core/clock.h"
#include "core/error.h"
#include "google/protobuf/util/json_util.h"
#include "server/log.h"
#include "server/store/background.h"
#include "server/store/disk_error.h"
#include "server/store/failpoint.h"
#include "server/store/records.h"

namespace fisherd::server {
namespace {

// Of the factors that share a file, all versions are kept until it is written.
constexpr int64_t kGroupBytes = 32 << 20;

constexpr char kSuffix[] = ".safetensors";

std::string FileName(uint64_t number) { return absl::StrCat(number, kSuffix); }

}  // namespace

std::string CovarianceName(std::string_view factor) { return "covariance/" + std::string(factor); }
std::string ResultName(std::string_view factor, size_t index) {
  return absl::StrCat("result/", index, "/", std::string(factor));
}
std::string FactorMetadataName(std::string_view factor) { return "factor/" + std::string(factor); }

SavedFactor::SavedFactor(core::FactorImage taken)
    : image(std::move(taken)), generation(ToGeneration(image)) {}

int64_t SavedFactor::bytes() const {
  return image.state->shape().bytes() * (1 + generation.results_size());
}

absl::StatusOr<std::vector<store::v1::Place>> WriteFactors(const std::string& directory,
                                                           const std::string& name,
                                                           std::span<const SavedFactor> factors) {
  std::vector<NamedMatrix> tensors;
  std::vector<std::shared_ptr<const core::Matrix>> held;  // copies of what is on a device
  const auto add = [&](std::string tensor, std::shared_ptr<const core::Matrix> matrix) {
    auto host = core::OnHost(std::move(matrix));
    if (!host.ok()) return host.status();
    held.push_back(*std::move(host));
    tensors.push_back({std::move(tensor), held.back().get()});
    return absl::OkStatus();
  };
  for (const SavedFactor& factor : factors) {
    if (auto s = add(CovarianceName(factor.image.name), factor.image.state); !s.ok()) return s;
    size_t index = 0;
    for (const core::SavedResult& result : factor.image.results) {
      if (result.cached == nullptr) continue;
      auto s =
          add(ResultName(factor.image.name, index++), {result.cached, result.cached->matrix.get()});
      if (!s.ok()) return s;
    }
  }
  TensorFileWriter writer(std::move(tensors));
  std::map<std::string, std::string> metadata = {{"fisherd_format", absl::StrCat(kFormatVersion)}};
  for (const SavedFactor& factor : factors) {
    std::string json;
    if (!google::protobuf::util::MessageToJsonString(factor.generation, &json).ok()) json.clear();
    metadata[FactorMetadataName(factor.image.name)] = std::move(json);
  }
  return writer.Write(directory, name, metadata);
}

void SavedFactor::TakePlaces(std::vector<store::v1::Place>::const_iterator& place) {
  *generation.mutable_covariance() = *place++;
  for (auto& result : *generation.mutable_results()) *result.mutable_place() = *place++;
}

Snapshotter::Snapshotter(Manifest* manifest, core::FactorRegistry* registry, Options options)
    : manifest_(*manifest), registry_(*registry), options_(std::move(options)) {
  thread_ = std::thread([this] { Loop(); });
}

Snapshotter::~Snapshotter() {
  {
    core::MutexLock lock(&mutex_);
    stopping_ = true;
    changed_.NotifyAll();
  }
  thread_.join();
}

void Snapshotter::MarkChanged(const std::string& factor) {
  core::MutexLock lock(&mutex_);
  changed_factors_.insert(factor);
}

void Snapshotter::Want(const std::string& factor) {
  core::MutexLock lock(&mutex_);
  if (wanted_.insert(factor).second) changed_.NotifyAll();
}

absl::Status Snapshotter::Save(const std::string& prefix, const Told& told) {
  core::MutexLock work(&work_mutex_);
  return SaveFactors(TakeChanged(prefix), told);
}

absl::Status Snapshotter::Run(const std::function<absl::Status()>& job) {
  core::MutexLock work(&work_mutex_);
  return job();
}

void Snapshotter::Loop() {
  SetBackgroundPriority();
  absl::Time next = core::SteadyNow() + options_.interval;
  for (;;) {
    std::set<std::string, std::less<>> wanted;
    bool files_to_remove = false;
    {
      core::MutexLock lock(&mutex_);
      // Now and then, for the log's sake.
      const absl::Time until = std::min(next, core::SteadyNow() + absl::Seconds(1));
      if (wanted_.empty() && !files_to_remove_ && !stopping_) changed_.WaitUntil(&mutex_, until);
      if (stopping_) return;
      wanted.swap(wanted_);
      files_to_remove = std::exchange(files_to_remove_, false);
      for (const std::string& name : wanted) changed_factors_.erase(name);
    }
    core::MutexLock work(&work_mutex_);
    if (files_to_remove) RemoveUnreferenced(manifest_, options_.directory);
    absl::Status status;
    if (!wanted.empty()) status = SaveFactors({wanted.begin(), wanted.end()}, nullptr);
    if (core::SteadyNow() >= next || manifest_.log_bytes() > options_.log_limit) {
      status.Update(SaveFactors(TakeChanged(""), nullptr));
      next = core::SteadyNow() + options_.interval;
    }
    if (!status.ok()) LogWarning("a snapshot failed: ", status.message());
  }
}

std::vector<std::string> Snapshotter::TakeChanged(std::string_view prefix) {
  core::MutexLock lock(&mutex_);
  std::vector<std::string> names;
  for (auto it = changed_factors_.lower_bound(prefix);
       it != changed_factors_.end() && it->starts_with(prefix); it = changed_factors_.erase(it)) {
    names.push_back(*it);
  }
  return names;
}

absl::Status Snapshotter::SaveFactors(const std::vector<std::string>& names, const Told& told) {
  VisitFailpoint("snapshot.begin");
  const absl::Time began = core::SteadyNow();
  SnapshotProgress progress = {.factors = std::ssize(names)};
  const auto tell = [&] {
    if (told != nullptr) told(progress);
  };
  std::vector<SavedFactor> group;
  int64_t group_bytes = 0;
  absl::Status status;
  const auto save_group = [&]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(work_mutex_) {
    if (group.empty()) return;
    absl::Status saved = SaveGroup(group);
    if (saved.ok()) {
      progress.factors_done += std::ssize(group);
      progress.bytes_done += group_bytes;
    }
    for (const SavedFactor& factor : group) {
      if (!saved.ok()) MarkChanged(factor.image.name);
    }
    status.Update(std::move(saved));
    group.clear();
    group_bytes = 0;
    tell();
  };
  for (const std::string& name : names) {
    if (!status.ok()) {  // the disk has said no: next time
      MarkChanged(name);
      continue;
    }
    const auto found = registry_.Find(name);
    absl::StatusOr<core::FactorImage> image = found.ok() ? (*found)->AwaitImage() : found.status();
    if (!image.ok()) {
      // Deleted, or there is no room to keep its version.
      if (absl::IsResourceExhausted(image.status())) {
        MarkChanged(name);
        status.Update(image.status());
      }
      --progress.factors;
      continue;
    }
    SavedFactor factor(*std::move(image));
    const int64_t bytes = factor.bytes();
    progress.bytes += bytes;
    if (group_bytes + bytes > kGroupBytes) save_group();
    group.push_back(std::move(factor));
    group_bytes += bytes;
    if (group_bytes >= kGroupBytes) save_group();  // before another version is kept
  }
  save_group();
  if (!names.empty()) Count(status, progress.bytes_done, began);
  return status;
}

void Snapshotter::Count(const absl::Status& saved, int64_t bytes, absl::Time began) {
  core::MutexLock lock(&mutex_);
  (saved.ok() ? stats_.snapshots : stats_.failures) += 1;
  stats_.bytes += bytes;
  stats_.time += core::SteadyNow() - began;
  if (saved.ok()) stats_.last_success = absl::Now();
  files_to_remove_ = true;
  changed_.NotifyAll();
}

absl::Status Snapshotter::SaveGroup(std::vector<SavedFactor>& group) {
  if (absl::Status status = manifest_.journal().CheckWritable(); !status.ok()) return status;
  const uint64_t file = manifest_.NewFile();
  for (SavedFactor& factor : group) factor.generation.set_file(file);
  const auto places = WriteFactors(options_.directory, FileName(file), group);
  if (!places.ok()) {
    if (IsSyncFailure(places.status())) manifest_.journal().Fail(places.status());
    return places.status();
  }
  auto place = places->begin();
  std::vector<Manifest::NamedGeneration> generations;
  for (SavedFactor& factor : group) {
    factor.TakePlaces(place);
    generations.push_back({factor.image.name, factor.generation, factor.image.ended()});
  }
  const auto committed = manifest_.CommitGenerations(std::move(generations));
  if (!committed.ok()) return committed.status();
  for (size_t i = 0; i < group.size(); ++i) {
    if (!(*committed)[i]) continue;
    if (const auto factor = registry_.Find(group[i].image.name); factor.ok()) {
      (*factor)->SetDurable(group[i].image);
    }
  }
  VisitFailpoint("generation.told");
  return absl::OkStatus();
}

void Snapshotter::RemoveUnreferenced(const Manifest& manifest, const std::string& directory) {
  std::error_code error;
  bool removed = false;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error)) {
    const std::string name = entry.path().filename();
    absl::string_view number = name;
    uint64_t file = 0;
    const bool ours = absl::ConsumeSuffix(&number, kSuffix) && absl::SimpleAtoi(number, &file);
    if (ours ? manifest.IsReferenced(file) : !absl::EndsWith(name, ".tmp")) continue;
    VisitFailpoint("file.remove");
    std::filesystem::remove(entry.path(), error);
    removed = true;
  }
  if (removed) VisitFailpoint("file.removed");
}

}  // namespace fisherd::server
