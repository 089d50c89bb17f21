#include "client/ctl/progress_bar.h"

namespace fisherd::ctl {
namespace {

constexpr absl::Duration kPatience = absl::Milliseconds(500);
constexpr absl::Duration kRedraw = absl::Milliseconds(100);
constexpr char kClearLine[] = "\r\033[K";

}  // namespace

ProgressBar::~ProgressBar() {
  if (visible_) out_ << kClearLine << std::flush;
}

void ProgressBar::Update(int64_t done, int64_t total) {
  if (!is_terminal_) return;
  const absl::Time now = now_();
  if (now - drawn_ < (visible_ ? kRedraw : kPatience)) return;
  out_ << kClearLine << show_(done, total, absl::ToDoubleSeconds(now - start_)) << std::flush;
  drawn_ = now;
  visible_ = true;
}

}  // namespace fisherd::ctl
