// The demo's picture: training loss and test accuracy by epoch, a curve for each method.

#ifndef FISHERD_TRAINER_SVG_H_
#define FISHERD_TRAINER_SVG_H_

#include <span>
#include <string>

#include "client/trainer/training.h"

namespace fisherd::trainer {

// An SVG document, readable on light and on dark ground. Both panels have logarithmic axes: the
// loss, and the share of wrong answers, labelled by the accuracy. At most six runs.
std::string CurvesSvg(std::span<const RunResult> runs);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_SVG_H_
