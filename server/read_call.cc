#include "server/read_call.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "core/error.h"
#include "server/codec.h"
#include "server/factor_error.h"

namespace fisherd::server {
namespace {

// `Message` is a ReadRequest or a MultiplyHeader.
template <typename Message>
absl::StatusOr<ReadCall> Parse(const core::FactorRegistry& registry, const Message& message) {
  auto factor = registry.Find(message.factor());
  if (!factor.ok()) return factor.status();
  auto op = FromProto(message.operator_(), "operator");
  if (!op.ok()) return op.status();
  if (absl::Status status = core::CheckOperator(*op); !status.ok()) return status;
  const auto dtype = FromProto(message.dtype(), "dtype");
  if (!dtype.ok()) return dtype.status();
  const auto layout = FromProto(message.layout(), "layout");
  if (!layout.ok()) return layout.status();

  ReadCall call;
  call.request.op = *std::move(op);
  call.request.dtype = *dtype;
  if (message.has_min_version()) {
    const auto min_version = FromProto(message.min_version(), "min_version");
    if (!min_version.ok()) return min_version.status();
    call.request.min_version = *min_version;
  }
  const bool own_type = *dtype == core::DataType::kUnspecified;
  call.view = {.layout = *layout,
               .split_bias = message.split_bias(),
               .dtype = own_type ? (*factor)->spec().dtype : *dtype};
  call.factor = *std::move(factor);
  return call;
}

}  // namespace

absl::StatusOr<ReadCall> ParseReadCall(const core::FactorRegistry& registry,
                                       const v1::ReadRequest& request) {
  auto call = Parse(registry, request);
  if (!call.ok()) return NameFactor(call.status(), request.factor());
  if (request.has_if_version_not()) {
    call->request.if_version_not = FromProto(request.if_version_not());
  }
  return call;
}

absl::StatusOr<ReadCall> ParseReadCall(const core::FactorRegistry& registry,
                                       const v1::MultiplyHeader& header) {
  auto call = Parse(registry, header);
  if (!call.ok()) return NameFactor(call.status(), header.factor());
  return call;
}

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
