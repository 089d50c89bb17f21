#include "core/damping_table.h"

#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"
#include "core/names.h"

namespace fisherd::core {
namespace {

absl::Status NotFound(std::string_view name) {
  return MakeError(absl::StatusCode::kNotFound, reason::kDampingNotFound,
                   absl::StrFormat("there is no damping %s; set it first", Quote(name)),
                   {{"damping", std::string(name)}});
}

}  // namespace

absl::Status DampingTable::Check(std::string_view name, double value) {
  if (absl::Status status = CheckName("damping", name); !status.ok()) return status;
  return WithMetadata(CheckDampingValue(value), "damping", name);
}

absl::Status DampingTable::Set(std::string_view name, double value) {
  if (absl::Status status = Check(name, value); !status.ok()) return status;
  MutexLock lock(&mutex_);
  values_.insert_or_assign(std::string(name), value);
  return absl::OkStatus();
}

absl::StatusOr<double> DampingTable::Get(std::string_view name) const {
  MutexLock lock(&mutex_);
  const auto found = values_.find(name);
  if (found == values_.end()) return NotFound(name);
  return found->second;
}

absl::Status DampingTable::Delete(std::string_view name) {
  MutexLock lock(&mutex_);
  const auto found = values_.find(name);
  if (found == values_.end()) return NotFound(name);
  values_.erase(found);
  return absl::OkStatus();
}

absl::StatusOr<double> DampingTable::Resolve(const Damping& damping) const {
  if (const double* value = std::get_if<double>(&damping)) return *value;
  return Get(std::get<std::string>(damping));
}

std::vector<std::pair<std::string, double>> DampingTable::List(std::string_view prefix,
                                                               std::string_view after,
                                                               size_t limit) const {
  MutexLock lock(&mutex_);
  std::vector<std::pair<std::string, double>> page;
  auto next = after < prefix ? values_.lower_bound(prefix) : values_.upper_bound(after);
  for (; next != values_.end() && page.size() < limit; ++next) {
    if (!next->first.starts_with(prefix)) break;
    page.push_back(*next);
  }
  return page;
}

}  // namespace fisherd::core
