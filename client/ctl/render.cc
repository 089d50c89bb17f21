#include "client/ctl/render.h"

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client/ctl/format.h"

namespace fisherd::ctl {
namespace {

std::string JsonWith(const google::protobuf::Message& message, bool whitespace) {
  google::protobuf::util::JsonPrintOptions options;
  options.add_whitespace = whitespace;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  // Cannot fail for messages without Any.
  static_cast<void>(google::protobuf::util::MessageToJsonString(message, &json, options));
  return json;
}

// The name of the kind is the name of its field: "fully_connected_diagonal".
std::string KindName(const v1::FactorSpec& spec) {
  const auto* oneof = spec.GetDescriptor()->FindOneofByName("kind");
  const auto* field = spec.GetReflection()->GetOneofFieldDescriptor(spec, oneof);
  return field == nullptr ? "unknown" : field->name();
}

// "FLOAT32" of DATA_TYPE_FLOAT32.
std::string Short(std::string_view name, std::string_view prefix) {
  return std::string(name.substr(name.starts_with(prefix) ? prefix.size() : 0));
}

std::string DtypeName(v1::DataType dtype) { return Short(v1::DataType_Name(dtype), "DATA_TYPE_"); }

std::string ShapeName(const google::protobuf::RepeatedField<int64_t>& shape) {
  return absl::StrCat("[", absl::StrJoin(shape, ", "), "]");
}

std::string VersionName(const v1::Version& version) {
  return absl::StrCat("step ", version.step(), " of incarnation ", version.incarnation(),
                      ", epoch ", version.epoch());
}

std::string DampingName(const v1::Damping& damping) {
  return damping.has_name() ? damping.name() : absl::StrCat(damping.value());
}

std::string PolicyName(const v1::RefreshPolicy& policy) {
  if (policy.kind() == v1::REFRESH_KIND_EVERY_N_STEPS) {
    return absl::StrCat("every ", policy.steps(), " steps");
  }
  return policy.kind() == v1::REFRESH_KIND_ON_REQUEST ? "on request" : "on read";
}

// A title, and what there is to say about it, by name.
std::string Page(const std::string& title, const std::vector<std::vector<std::string>>& rows) {
  return absl::StrCat(title, "\n\n", Table(rows));
}

std::string Number(double value) { return absl::StrFormat("%.6g", value); }

}  // namespace

std::string Json(const google::protobuf::Message& message) { return JsonWith(message, true); }

std::string JsonLine(const google::protobuf::Message& message) {
  return absl::StrCat(JsonWith(message, false), "\n");
}

std::string EventLine(const v1::FactorEvent& event) {
  std::string line = absl::StrFormat(
      "%-15s  %s  ", Short(v1::FactorEventKind_Name(event.kind()), "FACTOR_EVENT_KIND_"),
      event.factor());
  switch (event.kind()) {
    case v1::FACTOR_EVENT_KIND_STEP_ENDED:
      absl::StrAppend(&line, "step ", event.step(), ": ",
                      Short(v1::StepOutcome_Name(event.outcome()), "STEP_OUTCOME_"), ", towers ",
                      event.towers_counted(), ", label ", event.label(), "; ");
      break;
    case v1::FACTOR_EVENT_KIND_TOWERS_CHANGED:
      absl::StrAppend(&line, "towers ", event.towers(), " from step ", event.step(), "; ");
      break;
    case v1::FACTOR_EVENT_KIND_DURABLE:
      break;
    default:
      absl::StrAppend(&line, VersionName(event.version()), ", towers ", event.towers(), "; ");
  }
  absl::StrAppend(&line, "next ", event.next(), ", durable ", event.durable(), "\n");
  return line;
}

std::string FactorTable(const std::vector<v1::FactorInfo>& factors) {
  std::vector<std::vector<std::string>> rows = {
      {"NAME", "KIND", "SHAPE", "DTYPE", "TOWERS", "SOURCES", "STEPS", "STATE"}};
  for (const v1::FactorInfo& factor : factors) {
    const v1::FactorSpec& spec = factor.spec();
    rows.push_back({factor.name(), KindName(spec), ShapeName(factor.shape()),
                    DtypeName(spec.dtype()), absl::StrCat(spec.towers()),
                    absl::StrCat(spec.sources()), WithThousands(factor.steps_committed()),
                    Bytes(factor.state_bytes())});
  }
  return Table(rows);
}

std::string FactorPage(const v1::FactorInfo& factor) {
  const v1::FactorSpec& spec = factor.spec();
  std::vector<std::vector<std::string>> rows = {
      {"shape", ShapeName(factor.shape())},
      {"dtype", DtypeName(spec.dtype())},
      {"towers",
       absl::StrCat(spec.towers(), ", ",
                    Short(v1::TowerWeighting_Name(spec.tower_weighting()), "TOWER_WEIGHTING_"))},
      {"sources", absl::StrCat(spec.sources())},
      {"zero_debias", spec.zero_debias() ? "on" : "off"},
      {"version", VersionName(factor.version())},
      {"steps", absl::StrCat(WithThousands(factor.steps_committed()), " committed, ",
                             WithThousands(factor.steps_failed()), " failed; next ", factor.next(),
                             ", durable through ", factor.durable())},
      {"total_weight", Number(factor.total_weight())},
      {"label", absl::StrCat(factor.label())},
      {"memory", absl::StrCat(Bytes(factor.state_bytes()), " state, ", Bytes(factor.result_bytes()),
                              " results, ", Bytes(factor.pinned_bytes()), " pinned; to foresee ",
                              Bytes(factor.estimated_bytes()))},
      {"backend", factor.backend()},
      {"batches", absl::StrCat(factor.held_batches(), " held, ", Bytes(factor.held_bytes()))}};
  std::string page = Page(absl::StrCat(factor.name(), ": ", KindName(spec)), rows);
  if (!factor.towers().empty()) {
    rows = {{"TOWER", "CLAIMED", "RECEIVED THROUGH"}};
    for (const v1::TowerInfo& tower : factor.towers()) {
      rows.push_back({absl::StrCat(tower.tower()), tower.claimed() ? "yes" : "no",
                      WithThousands(tower.received_through())});
    }
    absl::StrAppend(&page, "\n", Table(rows));
  }
  if (!factor.registrations().empty()) {
    rows = {{"REGISTERED", "REFRESHED", "COMPUTED FROM", "DAMPING"}};
    for (const v1::Registration& registration : factor.registrations()) {
      rows.push_back(
          {OperatorName(registration.operator_()), PolicyName(registration.policy()),
           registration.has_computed_from() ? VersionName(registration.computed_from()) : "not yet",
           registration.has_damping() ? Number(registration.damping()) : "-"});
    }
    absl::StrAppend(&page, "\n", Table(rows));
  }
  return page;
}

std::string DampingTable(const std::vector<v1::DampingInfo>& dampings) {
  std::vector<std::vector<std::string>> rows = {{"NAME", "VALUE"}};
  for (const v1::DampingInfo& damping : dampings) {
    rows.push_back({damping.name(), absl::StrCat(damping.value())});
  }
  return Table(rows);
}

std::string OperatorName(const v1::Operator& op) {
  switch (op.kind_case()) {
    case v1::Operator::kCovariance:
      return "covariance";
    case v1::Operator::kMatpower:
      return absl::StrCat("matpower(", op.matpower().exponent(), ", ",
                          DampingName(op.matpower().damping()), ")");
    case v1::Operator::kCholesky:
      return absl::StrCat("cholesky(", DampingName(op.cholesky().damping()), ")");
    case v1::Operator::kCholeskyInverse:
      return absl::StrCat("cholesky_inverse(", DampingName(op.cholesky_inverse().damping()), ")");
    case v1::Operator::KIND_NOT_SET:
      break;
  }
  return "unknown";
}

std::string ReadingPage(const std::string& what, const v1::OperatorInfo& info,
                        const Summary& summary, const Matrix<double>& corner) {
  std::vector<std::vector<std::string>> rows = {
      {"shape", absl::StrCat("[", summary.rows, ", ", summary.cols, "], ",
                             WithThousands(summary.rows * summary.cols), " elements")},
      {"version", VersionName(info.version())},
      {"total_weight", Number(info.total_weight())}};
  if (info.has_damping()) rows.push_back({"damping", Number(info.damping())});
  if (info.cached()) rows.push_back({"cached", "yes"});
  rows.push_back({"minimum", Number(summary.min)});
  rows.push_back({"maximum", Number(summary.max)});
  rows.push_back({"mean", Number(summary.mean)});
  rows.push_back({"zeros", WithThousands(summary.zeros)});

  std::vector<std::vector<std::string>> elements(1);
  elements[0].push_back("");
  for (int64_t col = 0; col < corner.cols(); ++col) {
    elements[0].push_back(absl::StrCat("[:, ", col, "]"));
  }
  for (int64_t row = 0; row < corner.rows(); ++row) {
    std::vector<std::string>& line = elements.emplace_back();
    line.push_back(absl::StrCat("[", row, "]"));
    for (int64_t col = 0; col < corner.cols(); ++col) line.push_back(Number(corner(row, col)));
  }
  return absl::StrCat(Page(absl::StrCat(what, ": ", info.class_name()), rows), "\n",
                      Table(elements));
}

std::string ReadingJson(const v1::OperatorInfo& info, const Summary& summary,
                        const std::string& output) {
  std::string json = absl::StrFormat(
      "{\"operator\":%s,\"shape\":[%d,%d],\"min\":%.17g,\"max\":%.17g,\"mean\":%.17g,\"zeros\":%d",
      JsonWith(info, false), summary.rows, summary.cols, summary.min, summary.max, summary.mean,
      summary.zeros);
  if (!output.empty()) {
    google::protobuf::Value path;
    path.set_string_value(output);
    absl::StrAppend(&json, ",\"output\":", JsonWith(path, false));
  }
  return json + "}\n";
}

}  // namespace fisherd::ctl
