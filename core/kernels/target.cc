#include "core/kernels/target.h"

#include <algorithm>
#include <cctype>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "core/kernels/target.cc"
#include "hwy/foreach_target.h"  // must come before highway.h
#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
namespace fisherd::kernels::HWY_NAMESPACE {
namespace {

int64_t ThisTarget() { return HWY_TARGET; }

bool HasFma() {
#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_SSE4
  return false;
#else
  return true;
#endif
}

}  // namespace
}  // namespace fisherd::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace fisherd::kernels {

HWY_EXPORT(HasFma);
HWY_EXPORT(ThisTarget);

namespace {

// As the processor has them, whatever has been forced.
std::vector<int64_t> Available() {
  static const std::vector<int64_t> available = hwy::SupportedAndGeneratedTargets();
  return available;
}

}  // namespace

std::string TargetName(int64_t target) {
  std::string name = hwy::TargetName(target);
  std::ranges::transform(name, name.begin(), [](unsigned char c) { return std::tolower(c); });
  return name;
}

std::vector<std::string> AvailableTargets() {
  std::vector<std::string> names;
  for (const int64_t target : Available()) names.push_back(TargetName(target));
  return names;
}

std::string CurrentTarget() { return TargetName(HWY_DYNAMIC_DISPATCH(ThisTarget)()); }

bool ForceTarget(std::string_view name) {
  for (const int64_t target : Available()) {
    if (TargetName(target) != name) continue;
    hwy::SetSupportedTargetsForTest(target);
    return true;
  }
  return false;
}

void ChooseBestTarget() {
  Available();
  hwy::SetSupportedTargetsForTest(0);
}

bool TargetHasFma() { return HWY_DYNAMIC_DISPATCH(HasFma)(); }

}  // namespace fisherd::kernels
#endif  // HWY_ONCE
