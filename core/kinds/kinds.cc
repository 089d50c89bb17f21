// The one table of kinds.

#include <string>
#include <utility>

#include "absl/strings/str_format.h"
#include "core/error.h"
#include "core/kinds/fully_connected_diagonal/fully_connected_diagonal.h"
#include "core/kinds/kind.h"

namespace fisherd::core {
namespace {

// What does not depend on the kind.
absl::Status CheckCommon(const FactorSpec& spec) {
  if (spec.towers < 1 || spec.towers > kMaxTowers) {
    return BadArgument("towers",
                       absl::StrFormat("towers is %d; expected 1 to %d", spec.towers, kMaxTowers));
  }
  if (spec.sources < 1 || spec.sources > kMaxSources) {
    return BadArgument(
        "sources", absl::StrFormat("sources is %d; expected 1 to %d", spec.sources, kMaxSources));
  }
  if (spec.dtype != DataType::kFloat32 && spec.dtype != DataType::kFloat64) {
    return BadArgument(
        "dtype", absl::StrFormat("dtype is %s; expected FLOAT32 or FLOAT64", NameOf(spec.dtype)));
  }
  if (spec.zero_debias && spec.initial_covariance != InitialCovariance::kZeros) {
    return BadArgument(
        "initial_covariance",
        "initial_covariance is ONES with zero_debias on; expected ZEROS, or zero_debias "
        "off");
  }
  if (spec.window < 0 || spec.window > kMaxWindow) {
    return BadArgument("window",
                       absl::StrFormat("window is %d; expected 1 to %d", spec.window, kMaxWindow));
  }
  if (spec.gather_timeout < absl::ZeroDuration()) {
    return BadArgument("gather_timeout",
                       absl::StrFormat("gather_timeout is %s; expected more than 0",
                                       absl::FormatDuration(spec.gather_timeout)));
  }
  return absl::OkStatus();
}

using Made = absl::StatusOr<std::unique_ptr<const Kind>>;

struct Maker {
  const FactorSpec& spec;

  Made operator()(std::monostate) const {
    return BadArgument("kind", "no kind of factor; expected one, such as fully_connected_diagonal");
  }
  Made operator()(const FullyConnectedDiagonalSpec& layer) const {
    return MakeFullyConnectedDiagonal(spec, layer);
  }
};

}  // namespace

absl::StatusOr<std::unique_ptr<const Kind>> MakeKind(const FactorSpec& spec) {
  if (absl::Status status = CheckCommon(spec); !status.ok()) return status;
  return std::visit(Maker{spec}, spec.kind);
}

}  // namespace fisherd::core
