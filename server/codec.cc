#include "server/codec.h"

#include <cstddef>
#include <cstring>
#include <string>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/error.h"

namespace fisherd::server {
namespace {

// `value` is what the field was.
absl::Status BadField(std::string_view field, std::string_view value, std::string_view expected) {
  return core::BadArgument(field, absl::StrFormat("%s is %s; expected %s", field, value, expected));
}

std::string Path(std::string_view parent, std::string_view field) {
  return parent.empty() ? std::string(field) : absl::StrFormat("%s.%s", parent, field);
}

absl::StatusOr<core::TowerWeighting> FromProto(v1::TowerWeighting weighting,
                                               std::string_view field) {
  switch (weighting) {
    case v1::TOWER_WEIGHTING_UNSPECIFIED:
    case v1::TOWER_WEIGHTING_TOWER_MEAN:
      return core::TowerWeighting::kTowerMean;
    case v1::TOWER_WEIGHTING_EXAMPLE_WEIGHTED:
      return core::TowerWeighting::kExampleWeighted;
    default:
      return BadField(field, absl::StrCat(weighting), "TOWER_MEAN (1) or EXAMPLE_WEIGHTED (2)");
  }
}

absl::StatusOr<core::InitialCovariance> FromProto(v1::InitialCovariance initial,
                                                  std::string_view field) {
  switch (initial) {
    case v1::INITIAL_COVARIANCE_UNSPECIFIED:
    case v1::INITIAL_COVARIANCE_ZEROS:
      return core::InitialCovariance::kZeros;
    case v1::INITIAL_COVARIANCE_ONES:
      return core::InitialCovariance::kOnes;
    default:
      return BadField(field, absl::StrCat(initial), "ZEROS (1) or ONES (2)");
  }
}

absl::StatusOr<core::UpdateMode> FromProto(v1::UpdateMode mode, std::string_view field) {
  switch (mode) {
    case v1::UPDATE_MODE_UNSPECIFIED:
    case v1::UPDATE_MODE_SYNCHRONOUS:
      return core::UpdateMode::kSynchronous;
    case v1::UPDATE_MODE_ASYNCHRONOUS:
      return core::UpdateMode::kAsynchronous;
    default:
      return BadField(field, absl::StrCat(mode), "SYNCHRONOUS (1) or ASYNCHRONOUS (2)");
  }
}

absl::StatusOr<core::GatherPolicy> FromProto(v1::GatherPolicy policy, std::string_view field) {
  switch (policy) {
    case v1::GATHER_POLICY_UNSPECIFIED:
    case v1::GATHER_POLICY_FAIL:
      return core::GatherPolicy::kFail;
    case v1::GATHER_POLICY_PARTIAL:
      return core::GatherPolicy::kPartial;
    default:
      return BadField(field, absl::StrCat(policy), "FAIL (1) or PARTIAL (2)");
  }
}

absl::StatusOr<core::DurabilityLevel> FromProto(v1::DurabilityLevel level, std::string_view field) {
  switch (level) {
    case v1::DURABILITY_LEVEL_UNSPECIFIED:
      return core::DurabilityLevel::kUnset;
    case v1::DURABILITY_LEVEL_MEMORY:
      return core::DurabilityLevel::kMemory;
    case v1::DURABILITY_LEVEL_SNAPSHOT:
      return core::DurabilityLevel::kSnapshot;
    case v1::DURABILITY_LEVEL_SYNC:
      return core::DurabilityLevel::kSync;
    default:
      return BadField(field, absl::StrCat(level), "MEMORY (1), SNAPSHOT (2) or SYNC (3)");
  }
}

absl::StatusOr<core::BackendChoice> FromProto(v1::BackendChoice choice, std::string_view field) {
  switch (choice) {
    case v1::BACKEND_CHOICE_UNSPECIFIED:
      return core::BackendChoice::kAny;
    case v1::BACKEND_CHOICE_CPU:
      return core::BackendChoice::kCpu;
    case v1::BACKEND_CHOICE_CUDA:
      return core::BackendChoice::kCuda;
    default:
      return BadField(field, absl::StrCat(choice), "CPU (1) or CUDA (2)");
  }
}

absl::StatusOr<absl::Duration> FromProto(const google::protobuf::Duration& duration,
                                         std::string_view field) {
  const absl::Duration result =
      absl::Seconds(duration.seconds()) + absl::Nanoseconds(duration.nanos());
  if (result > absl::ZeroDuration()) return result;
  return BadField(field, absl::FormatDuration(result), "a duration above 0");
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration message;
  absl::Duration rest;
  message.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &rest));
  message.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(rest)));
  return message;
}

absl::StatusOr<core::TensorRole> FromProto(v1::TensorRole role, std::string_view field) {
  switch (role) {
    case v1::TENSOR_ROLE_INPUTS:
      return core::TensorRole::kInputs;
    case v1::TENSOR_ROLE_OUTPUTS_GRADS:
      return core::TensorRole::kOutputsGrads;
    case v1::TENSOR_ROLE_ROW_WEIGHTS:
      return core::TensorRole::kRowWeights;
    case v1::TENSOR_ROLE_RESULT:
      return core::TensorRole::kResult;
    case v1::TENSOR_ROLE_WEIGHT:
      return core::TensorRole::kWeight;
    case v1::TENSOR_ROLE_BIAS:
      return core::TensorRole::kBias;
    case v1::TENSOR_ROLE_CONTRIBUTION:
      return core::TensorRole::kContribution;
    default:
      return BadField(field, absl::StrCat(role), "one of TensorRole, 1 to 7");
  }
}

v1::TensorRole ToProto(core::TensorRole role) {
  switch (role) {
    case core::TensorRole::kUnspecified:
      break;
    case core::TensorRole::kInputs:
      return v1::TENSOR_ROLE_INPUTS;
    case core::TensorRole::kOutputsGrads:
      return v1::TENSOR_ROLE_OUTPUTS_GRADS;
    case core::TensorRole::kRowWeights:
      return v1::TENSOR_ROLE_ROW_WEIGHTS;
    case core::TensorRole::kResult:
      return v1::TENSOR_ROLE_RESULT;
    case core::TensorRole::kWeight:
      return v1::TENSOR_ROLE_WEIGHT;
    case core::TensorRole::kBias:
      return v1::TENSOR_ROLE_BIAS;
    case core::TensorRole::kContribution:
      return v1::TENSOR_ROLE_CONTRIBUTION;
  }
  return v1::TENSOR_ROLE_UNSPECIFIED;
}

v1::Damping ToProto(const core::Damping& damping) {
  v1::Damping message;
  if (const auto* name = std::get_if<std::string>(&damping)) {
    message.set_name(*name);
  } else {
    message.set_value(std::get<double>(damping));
  }
  return message;
}

}  // namespace

absl::StatusOr<core::DataType> FromProto(v1::DataType type, std::string_view field) {
  switch (type) {
    case v1::DATA_TYPE_UNSPECIFIED:
      return core::DataType::kUnspecified;
    case v1::DATA_TYPE_FLOAT32:
      return core::DataType::kFloat32;
    case v1::DATA_TYPE_FLOAT64:
      return core::DataType::kFloat64;
    case v1::DATA_TYPE_BFLOAT16:
      return core::DataType::kBfloat16;
    case v1::DATA_TYPE_FLOAT16:
      return core::DataType::kFloat16;
    default:
      return BadField(field, absl::StrCat(type),
                      "FLOAT32 (1), FLOAT64 (2), BFLOAT16 (3) or FLOAT16 (4)");
  }
}

absl::StatusOr<core::Layout> FromProto(v1::Layout layout, std::string_view field) {
  switch (layout) {
    case v1::LAYOUT_UNSPECIFIED:
    case v1::LAYOUT_IN_OUT:
      return core::Layout::kInOut;
    case v1::LAYOUT_OUT_IN:
      return core::Layout::kOutIn;
    default:
      return BadField(field, absl::StrCat(layout), "IN_OUT (1) or OUT_IN (2)");
  }
}

absl::StatusOr<core::FactorSpec> FromProto(const v1::FactorSpec& spec, std::string_view field) {
  core::FactorSpec result;
  switch (spec.kind_case()) {
    case v1::FactorSpec::kFullyConnectedDiagonal: {
      const auto& kind = spec.fully_connected_diagonal();
      result.kind = core::FullyConnectedDiagonalSpec{.input_size = kind.input_size(),
                                                     .output_size = kind.output_size(),
                                                     .has_bias = kind.has_bias()};
      break;
    }
    case v1::FactorSpec::KIND_NOT_SET:
      return BadField(Path(field, "kind"), "absent", "a kind: fully_connected_diagonal");
  }
  if (spec.towers() != 0) result.towers = spec.towers();
  if (spec.sources() != 0) result.sources = spec.sources();
  if (spec.dtype() != v1::DATA_TYPE_UNSPECIFIED) {
    const auto dtype = FromProto(spec.dtype(), Path(field, "dtype"));
    if (!dtype.ok()) return dtype.status();
    result.dtype = *dtype;
  }
  const auto weighting = FromProto(spec.tower_weighting(), Path(field, "tower_weighting"));
  if (!weighting.ok()) return weighting.status();
  result.tower_weighting = *weighting;
  if (spec.has_zero_debias()) result.zero_debias = spec.zero_debias();
  const auto initial = FromProto(spec.initial_covariance(), Path(field, "initial_covariance"));
  if (!initial.ok()) return initial.status();
  result.initial_covariance = *initial;
  const auto mode = FromProto(spec.update_mode(), Path(field, "update_mode"));
  if (!mode.ok()) return mode.status();
  result.update_mode = *mode;
  const auto policy = FromProto(spec.gather_policy(), Path(field, "gather_policy"));
  if (!policy.ok()) return policy.status();
  result.gather_policy = *policy;
  if (spec.has_gather_timeout()) {
    const auto timeout = FromProto(spec.gather_timeout(), Path(field, "gather_timeout"));
    if (!timeout.ok()) return timeout.status();
    result.gather_timeout = *timeout;
  }
  result.window = spec.window();
  const auto durability = FromProto(spec.durability(), Path(field, "durability"));
  if (!durability.ok()) return durability.status();
  result.durability = *durability;
  const auto backend = FromProto(spec.backend(), Path(field, "backend"));
  if (!backend.ok()) return backend.status();
  result.backend = *backend;
  return result;
}

absl::StatusOr<core::Damping> FromProto(const v1::Damping& damping, std::string_view field) {
  switch (damping.kind_case()) {
    case v1::Damping::kValue:
      return core::Damping(damping.value());
    case v1::Damping::kName:
      return core::Damping(damping.name());
    case v1::Damping::KIND_NOT_SET:
      break;
  }
  return BadField(field, "absent", "a value, or the name of a damping function");
}

absl::StatusOr<core::OperatorSpec> FromProto(const v1::Operator& op, std::string_view field) {
  core::OperatorSpec result;
  const v1::Damping* damping = nullptr;
  std::string_view kind;
  switch (op.kind_case()) {
    case v1::Operator::kCovariance:
      return result;
    case v1::Operator::kMatpower:
      result.kind = core::OperatorKind::kMatpower;
      result.exponent = op.matpower().exponent();
      damping = &op.matpower().damping();
      kind = "matpower";
      break;
    case v1::Operator::kCholesky:
      result.kind = core::OperatorKind::kCholesky;
      damping = &op.cholesky().damping();
      kind = "cholesky";
      break;
    case v1::Operator::kCholeskyInverse:
      result.kind = core::OperatorKind::kCholeskyInverse;
      damping = &op.cholesky_inverse().damping();
      kind = "cholesky_inverse";
      break;
    case v1::Operator::KIND_NOT_SET:
      return BadField(Path(field, "kind"), "absent",
                      "covariance, matpower, cholesky or cholesky_inverse");
  }
  auto converted = FromProto(*damping, Path(Path(field, kind), "damping"));
  if (!converted.ok()) return converted.status();
  result.damping = *std::move(converted);
  return result;
}

absl::StatusOr<core::RefreshPolicy> FromProto(const v1::RefreshPolicy& policy,
                                              std::string_view field) {
  core::RefreshPolicy result{.kind = core::RefreshKind::kOnRead, .steps = policy.steps()};
  switch (policy.kind()) {
    case v1::REFRESH_KIND_UNSPECIFIED:
    case v1::REFRESH_KIND_ON_READ:
      break;
    case v1::REFRESH_KIND_EVERY_N_STEPS:
      result.kind = core::RefreshKind::kEveryNSteps;
      break;
    case v1::REFRESH_KIND_ON_REQUEST:
      result.kind = core::RefreshKind::kOnRequest;
      break;
    default:
      return BadField(Path(field, "kind"), absl::StrCat(policy.kind()),
                      "ON_READ (1), EVERY_N_STEPS (2) or ON_REQUEST (3)");
  }
  const bool counts = result.kind == core::RefreshKind::kEveryNSteps;
  if (counts ? result.steps < 1 : result.steps != 0) {
    return BadField(Path(field, "steps"), absl::StrCat(result.steps),
                    counts ? "at least 1 with EVERY_N_STEPS" : "0 unless kind is EVERY_N_STEPS");
  }
  return result;
}

absl::StatusOr<core::TensorSpec> FromProto(const v1::TensorSpec& tensor, std::string_view field) {
  const auto role = FromProto(tensor.role(), Path(field, "role"));
  if (!role.ok()) return role.status();
  const auto dtype = FromProto(tensor.dtype(), Path(field, "dtype"));
  if (!dtype.ok()) return dtype.status();
  if (*dtype == core::DataType::kUnspecified) {
    return BadField(Path(field, "dtype"), "absent", "the type of the tensor's elements");
  }
  return core::TensorSpec{.role = *role,
                          .source = tensor.source(),
                          .dtype = *dtype,
                          .shape = {tensor.shape().begin(), tensor.shape().end()}};
}

std::optional<std::array<std::byte, 16>> SixteenBytes(std::string_view bytes) {
  std::array<std::byte, 16> result;
  if (bytes.size() != result.size()) return std::nullopt;
  std::memcpy(result.data(), bytes.data(), result.size());
  return result;
}

absl::StatusOr<core::BatchHeader> FromProto(const v1::BatchHeader& header) {
  core::BatchHeader result;
  switch (header.form()) {
    case v1::BATCH_FORM_UNSPECIFIED:
    case v1::BATCH_FORM_RAW:
      break;
    case v1::BATCH_FORM_CONTRIBUTION:
      result.form = core::BatchForm::kContribution;
      break;
    default:
      return BadField("form", absl::StrCat(header.form()), "RAW (1) or CONTRIBUTION (2)");
  }
  if (header.has_examples()) result.examples = header.examples();
  result.incarnation = header.incarnation();
  result.step = header.step();
  result.tower = header.tower();
  result.rows = header.rows();
  result.label = header.label();
  if (header.has_decay()) result.decay = header.decay();
  if (header.has_weight()) result.weight = header.weight();
  if (header.has_gradient_scale()) result.gradient_scale = header.gradient_scale();
  const auto digest = SixteenBytes(header.digest());
  if (!digest.has_value()) {
    return BadField("digest", absl::StrCat(header.digest().size(), " bytes"), "16 bytes");
  }
  result.digest = *digest;
  result.tensors.reserve(header.tensors_size());
  for (int i = 0; i < header.tensors_size(); ++i) {
    auto tensor = FromProto(header.tensors(i), absl::StrFormat("tensors[%d]", i));
    if (!tensor.ok()) return tensor.status();
    result.tensors.push_back(*std::move(tensor));
  }
  return result;
}

absl::StatusOr<core::MinVersion> FromProto(const v1::MinVersion& version, std::string_view field) {
  if (version.incarnation() == 0) {
    return BadField(Path(field, "incarnation"), "absent",
                    "the factor's incarnation, as answers give it");
  }
  if (version.step() < 0) {
    return BadField(Path(field, "step"), absl::StrCat(version.step()), "a step, at least 0");
  }
  return core::MinVersion{.incarnation = version.incarnation(), .step = version.step()};
}

core::Version FromProto(const v1::Version& version) {
  return {.incarnation = version.incarnation(), .epoch = version.epoch(), .step = version.step()};
}

v1::DataType ToProto(core::DataType type) {
  switch (type) {
    case core::DataType::kUnspecified:
      break;
    case core::DataType::kFloat32:
      return v1::DATA_TYPE_FLOAT32;
    case core::DataType::kFloat64:
      return v1::DATA_TYPE_FLOAT64;
    case core::DataType::kBfloat16:
      return v1::DATA_TYPE_BFLOAT16;
    case core::DataType::kFloat16:
      return v1::DATA_TYPE_FLOAT16;
  }
  return v1::DATA_TYPE_UNSPECIFIED;
}

v1::Version ToProto(const core::Version& version) {
  v1::Version message;
  message.set_incarnation(version.incarnation);
  message.set_epoch(version.epoch);
  message.set_step(version.step);
  return message;
}

v1::DurabilityLevel ToProto(core::DurabilityLevel level) {
  switch (level) {
    case core::DurabilityLevel::kUnset:
      break;
    case core::DurabilityLevel::kMemory:
      return v1::DURABILITY_LEVEL_MEMORY;
    case core::DurabilityLevel::kSnapshot:
      return v1::DURABILITY_LEVEL_SNAPSHOT;
    case core::DurabilityLevel::kSync:
      return v1::DURABILITY_LEVEL_SYNC;
  }
  return v1::DURABILITY_LEVEL_UNSPECIFIED;
}

v1::BackendChoice ToProto(core::BackendChoice choice) {
  switch (choice) {
    case core::BackendChoice::kAny:
      break;
    case core::BackendChoice::kCpu:
      return v1::BACKEND_CHOICE_CPU;
    case core::BackendChoice::kCuda:
      return v1::BACKEND_CHOICE_CUDA;
  }
  return v1::BACKEND_CHOICE_UNSPECIFIED;
}

v1::FactorSpec ToProto(const core::FactorSpec& spec) {
  v1::FactorSpec message;
  if (const auto* kind = std::get_if<core::FullyConnectedDiagonalSpec>(&spec.kind)) {
    auto* diagonal = message.mutable_fully_connected_diagonal();
    diagonal->set_input_size(kind->input_size);
    diagonal->set_output_size(kind->output_size);
    diagonal->set_has_bias(kind->has_bias);
  }
  message.set_towers(spec.towers);
  message.set_sources(spec.sources);
  message.set_dtype(ToProto(spec.dtype));
  message.set_tower_weighting(spec.tower_weighting == core::TowerWeighting::kTowerMean
                                  ? v1::TOWER_WEIGHTING_TOWER_MEAN
                                  : v1::TOWER_WEIGHTING_EXAMPLE_WEIGHTED);
  message.set_zero_debias(spec.zero_debias);
  message.set_initial_covariance(spec.initial_covariance == core::InitialCovariance::kZeros
                                     ? v1::INITIAL_COVARIANCE_ZEROS
                                     : v1::INITIAL_COVARIANCE_ONES);
  message.set_update_mode(spec.update_mode == core::UpdateMode::kSynchronous
                              ? v1::UPDATE_MODE_SYNCHRONOUS
                              : v1::UPDATE_MODE_ASYNCHRONOUS);
  message.set_gather_policy(spec.gather_policy == core::GatherPolicy::kFail
                                ? v1::GATHER_POLICY_FAIL
                                : v1::GATHER_POLICY_PARTIAL);
  if (spec.gather_timeout != absl::ZeroDuration() &&
      spec.gather_timeout != absl::InfiniteDuration()) {
    *message.mutable_gather_timeout() = ToProto(spec.gather_timeout);
  }
  message.set_window(spec.window);
  message.set_durability(ToProto(spec.durability));
  message.set_backend(ToProto(spec.backend));
  return message;
}

v1::Operator ToProto(const core::OperatorSpec& op) {
  v1::Operator message;
  switch (op.kind) {
    case core::OperatorKind::kCovariance:
      message.mutable_covariance();
      break;
    case core::OperatorKind::kMatpower:
      message.mutable_matpower()->set_exponent(op.exponent);
      *message.mutable_matpower()->mutable_damping() = ToProto(op.damping);
      break;
    case core::OperatorKind::kCholesky:
      *message.mutable_cholesky()->mutable_damping() = ToProto(op.damping);
      break;
    case core::OperatorKind::kCholeskyInverse:
      *message.mutable_cholesky_inverse()->mutable_damping() = ToProto(op.damping);
      break;
  }
  return message;
}

v1::RefreshPolicy ToProto(const core::RefreshPolicy& policy) {
  v1::RefreshPolicy message;
  switch (policy.kind) {
    case core::RefreshKind::kOnRead:
      message.set_kind(v1::REFRESH_KIND_ON_READ);
      break;
    case core::RefreshKind::kEveryNSteps:
      message.set_kind(v1::REFRESH_KIND_EVERY_N_STEPS);
      break;
    case core::RefreshKind::kOnRequest:
      message.set_kind(v1::REFRESH_KIND_ON_REQUEST);
      break;
  }
  message.set_steps(policy.steps);
  return message;
}

v1::TensorSpec ToProto(const core::TensorSpec& tensor) {
  v1::TensorSpec message;
  message.set_role(ToProto(tensor.role));
  message.set_source(tensor.source);
  message.set_dtype(ToProto(tensor.dtype));
  message.mutable_shape()->Add(tensor.shape.begin(), tensor.shape.end());
  return message;
}

v1::Registration ToProto(const core::RegistrationInfo& registration) {
  v1::Registration message;
  *message.mutable_operator_() = ToProto(registration.op);
  *message.mutable_policy() = ToProto(registration.policy);
  if (registration.computed_from.has_value()) {
    *message.mutable_computed_from() = ToProto(*registration.computed_from);
  }
  if (registration.damping.has_value()) message.set_damping(*registration.damping);
  return message;
}

v1::FactorInfo ToProto(const core::FactorInfo& factor) {
  v1::FactorInfo message;
  message.set_name(factor.name);
  *message.mutable_spec() = ToProto(factor.spec);
  *message.mutable_version() = ToProto(factor.version);
  message.set_steps_committed(factor.steps_committed);
  message.set_steps_failed(factor.steps_failed);
  message.set_steps_partial(factor.steps_partial);
  message.set_open_through(factor.open_through);
  message.set_backend(factor.backend);
  message.set_next(factor.next);
  message.set_durable(factor.durable);
  message.set_total_weight(factor.total_weight);
  message.set_label(factor.label);
  message.add_shape(factor.shape.rows);
  message.add_shape(factor.shape.cols);
  message.set_state_bytes(factor.state_bytes);
  message.set_pinned_bytes(factor.pinned_bytes);
  message.set_result_bytes(factor.result_bytes);
  message.set_estimated_bytes(factor.estimated_bytes);
  message.set_held_batches(factor.held_batches);
  message.set_held_bytes(factor.held_bytes);
  for (size_t i = 0; i < factor.towers.size(); ++i) {
    v1::TowerInfo* tower = message.add_towers();
    tower->set_tower(static_cast<int>(i));
    tower->set_claimed(factor.towers[i].claimed);
    tower->set_received_through(factor.towers[i].received_through);
  }
  for (const core::RegistrationInfo& registration : factor.registrations) {
    *message.add_registrations() = ToProto(registration);
  }
  return message;
}

v1::FactorEventKind ToProto(core::FactorEventKind kind) {
  switch (kind) {
    case core::FactorEventKind::kPresent:
      return v1::FACTOR_EVENT_KIND_PRESENT;
    case core::FactorEventKind::kCreated:
      return v1::FACTOR_EVENT_KIND_CREATED;
    case core::FactorEventKind::kStepEnded:
      return v1::FACTOR_EVENT_KIND_STEP_ENDED;
    case core::FactorEventKind::kDurable:
      return v1::FACTOR_EVENT_KIND_DURABLE;
    case core::FactorEventKind::kTowersChanged:
      return v1::FACTOR_EVENT_KIND_TOWERS_CHANGED;
    case core::FactorEventKind::kReset:
      return v1::FACTOR_EVENT_KIND_RESET;
    case core::FactorEventKind::kDeleted:
      return v1::FACTOR_EVENT_KIND_DELETED;
    case core::FactorEventKind::kSkipped:
      return v1::FACTOR_EVENT_KIND_SKIPPED;
  }
  return v1::FACTOR_EVENT_KIND_UNSPECIFIED;
}

v1::StepOutcome ToProto(core::StepOutcome outcome) {
  switch (outcome) {
    case core::StepOutcome::kWhole:
      return v1::STEP_OUTCOME_WHOLE;
    case core::StepOutcome::kFailed:
      return v1::STEP_OUTCOME_FAILED;
    case core::StepOutcome::kPartial:
      break;
  }
  return v1::STEP_OUTCOME_PARTIAL;
}

v1::StepRun ToProto(const core::StepRun& run) {
  v1::StepRun message;
  message.set_first_step(run.first);
  message.set_last_step(run.last);
  message.set_outcome(ToProto(run.outcome));
  return message;
}

v1::FactorEvent ToProto(const core::FactorEvent& event) {
  v1::FactorEvent message;
  message.set_kind(ToProto(event.kind));
  message.set_factor(event.factor);
  *message.mutable_version() = ToProto(event.version);
  message.set_next(event.next);
  message.set_durable(event.durable);
  message.set_towers(event.towers);
  message.set_step(event.step);
  if (event.kind != core::FactorEventKind::kStepEnded) return message;
  message.set_outcome(ToProto(event.outcome));
  message.set_towers_counted(event.towers_counted);
  message.set_label(event.label);
  message.set_tower(event.tower);
  return message;
}

v1::Progress ToProto(const core::Progress& progress, std::string_view factor, int tower) {
  v1::Progress message;
  message.set_factor(factor.data(), factor.size());
  message.set_tower(tower);
  message.set_incarnation(progress.incarnation);
  message.set_epoch(progress.epoch);
  message.set_towers(progress.towers);
  message.set_next(progress.next);
  message.set_durable(progress.durable);
  message.set_open_through(progress.open_through);
  message.set_window(progress.window);
  for (const core::StepRun& run : progress.missed) *message.add_missed() = ToProto(run);
  message.set_first(progress.first);
  return message;
}

}  // namespace fisherd::server
