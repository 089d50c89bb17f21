// Which instruction set the kernels run on. Every kernel is compiled for each target of its
// architecture and chosen at run time (Google Highway), so one binary serves every processor.

#ifndef FISHERD_CORE_KERNELS_TARGET_H_
#define FISHERD_CORE_KERNELS_TARGET_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace fisherd::kernels {

// The environment variable that forces a target, for whoever wants to compare or to reproduce.
inline constexpr char kTargetVariable[] = "FISHERD_TARGET";

// The targets that are compiled in and that this processor has, the best first, by Highway's names
// in lower case: "avx3" (AVX-512), "avx2" (with FMA), "sse4", "scalar"; "sve", "neon". Not empty.
std::vector<std::string> AvailableTargets();

// The target that kernels run on from now on.
std::string CurrentTarget();

// Forces a target; false, and no change, unless it is one of AvailableTargets(). Rows that have
// been packed stay good: their layout is the same for all targets. Not for use while kernels run.
bool ForceTarget(std::string_view name);

// Back to the best one.
void ChooseBestTarget();

// Whether the current target has a fused multiply-add. All that have one compute the same bits.
bool TargetHasFma();

// For the kernels: the name of one of Highway's HWY_TARGET.
std::string TargetName(int64_t target);

}  // namespace fisherd::kernels

#endif  // FISHERD_CORE_KERNELS_TARGET_H_
