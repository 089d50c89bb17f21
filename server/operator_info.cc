#include "server/operator_info.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "server/codec.h"

namespace fisherd::server {

v1::OperatorInfo OperatorInfoOf(const core::ReadResult& result) {
  v1::OperatorInfo info;
  if (result.op != nullptr) {
    info.set_class_name(std::string(result.op->class_name()));
    info.set_range_dimension(result.op->dimension());
    info.set_domain_dimension(result.op->dimension());
  }
  *info.mutable_version() = ToProto(result.version);
  info.set_steps_committed(result.steps_committed);
  info.set_next(result.next);
  *info.mutable_current_version() = ToProto(result.current_version);
  info.set_total_weight(result.total_weight);
  if (result.damping.has_value()) info.set_damping(*result.damping);
  info.set_cached(result.cached);
  return info;
}

absl::Status Stalled(absl::Duration timeout) {
  return core::MakeError(
      absl::StatusCode::kDeadlineExceeded, core::reason::kReadStalled,
      absl::StrCat("the transfer stood still for ", absl::FormatDuration(timeout),
                   " and its version has been let go; read it again, and without pauses"));
}

}  // namespace fisherd::server
