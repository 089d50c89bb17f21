// A bar that shows how far a transfer has come.

#ifndef FISHERD_CTL_PROGRESS_BAR_H_
#define FISHERD_CTL_PROGRESS_BAR_H_

#include <cstdint>
#include <ostream>
#include <string>

#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "client/ctl/format.h"

namespace fisherd::ctl {

// Draws only on a terminal, and only when a transfer takes longer than half a second. Not
// thread-safe.
class ProgressBar {
 public:
  // How what is done, all of it, and the seconds since the start are shown.
  using Show = std::string (*)(int64_t done, int64_t total, double seconds);
  // `now` is the clock; `out` outlives the bar.
  ProgressBar(std::ostream& out, bool is_terminal, absl::Time (*now)() = absl::Now,
              Show show = Progress)
      : out_(out),
        is_terminal_(is_terminal),
        now_(now),
        show_(show),
        start_(now()),
        drawn_(start_) {}
  // Removes the bar.
  ~ProgressBar();

  void Update(int64_t done, int64_t total);

 private:
  std::ostream& out_;
  const bool is_terminal_;
  absl::Time (*const now_)();
  const Show show_;
  const absl::Time start_;
  absl::Time drawn_;
  bool visible_ = false;
};

}  // namespace fisherd::ctl

#endif  // FISHERD_CTL_PROGRESS_BAR_H_
