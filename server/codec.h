// Between the messages of fisherd.v1 and core's types.
//
// FromProto is strict: a required field that is absent, an enum value that this version does not
// know, or a field that does not go with the others is INVALID_ARGUMENT (BAD_ARGUMENT), whose
// message and metadata "field" name it by its path within the message ("tensors[2].role"). What a
// value means (ranges, shapes, names) is checked by core, not here. ToProto cannot fail, and sets
// no field to an unspecified value.

#ifndef FISHERD_SERVER_CODEC_H_
#define FISHERD_SERVER_CODEC_H_

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/batch_header.h"
#include "core/commit_record.h"
#include "core/factor.h"
#include "core/factor_spec.h"
#include "core/linear_operator.h"
#include "core/registered_results.h"
#include "core/tensor.h"
#include "core/watch_hub.h"
#include "fisherd/v1/factor_service.pb.h"
#include "fisherd/v1/types.pb.h"
#include "fisherd/v1/update.pb.h"

namespace fisherd::server {

// `field` is how the message being converted is called in errors.

// An unspecified type is allowed: it is the state's.
absl::StatusOr<core::DataType> FromProto(v1::DataType type, std::string_view field);
absl::StatusOr<core::Layout> FromProto(v1::Layout layout, std::string_view field);
absl::StatusOr<core::FactorSpec> FromProto(const v1::FactorSpec& spec, std::string_view field);
absl::StatusOr<core::Damping> FromProto(const v1::Damping& damping, std::string_view field);
absl::StatusOr<core::OperatorSpec> FromProto(const v1::Operator& op, std::string_view field);
absl::StatusOr<core::RefreshPolicy> FromProto(const v1::RefreshPolicy& policy,
                                              std::string_view field);
// Role and type are required.
absl::StatusOr<core::TensorSpec> FromProto(const v1::TensorSpec& tensor, std::string_view field);
// UNIMPLEMENTED (UNSUPPORTED) for contributions. The factor's name is not part of the result.
// A client_id or a digest; nullopt unless there are 16 bytes.
std::optional<std::array<std::byte, 16>> SixteenBytes(std::string_view bytes);
absl::StatusOr<core::BatchHeader> FromProto(const v1::BatchHeader& header);
absl::StatusOr<core::MinVersion> FromProto(const v1::MinVersion& version, std::string_view field);
core::Version FromProto(const v1::Version& version);

v1::DataType ToProto(core::DataType type);
v1::Version ToProto(const core::Version& version);
v1::DurabilityLevel ToProto(core::DurabilityLevel level);
v1::BackendChoice ToProto(core::BackendChoice choice);
v1::FactorSpec ToProto(const core::FactorSpec& spec);
v1::Operator ToProto(const core::OperatorSpec& op);
v1::RefreshPolicy ToProto(const core::RefreshPolicy& policy);
v1::TensorSpec ToProto(const core::TensorSpec& tensor);
v1::Registration ToProto(const core::RegistrationInfo& registration);
v1::FactorInfo ToProto(const core::FactorInfo& factor);
v1::FactorEventKind ToProto(core::FactorEventKind kind);
v1::StepOutcome ToProto(core::StepOutcome outcome);
v1::StepRun ToProto(const core::StepRun& run);
v1::FactorEvent ToProto(const core::FactorEvent& event);
v1::Progress ToProto(const core::Progress& progress, std::string_view factor, int tower);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_CODEC_H_
