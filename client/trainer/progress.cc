#include "client/trainer/progress.h"

#include <unistd.h>

#include <utility>

#include "absl/strings/str_format.h"

namespace fisherd::trainer {

Progress::Progress(std::FILE* out, std::string label)
    : out_(out), label_(std::move(label)), terminal_(isatty(fileno(out)) == 1) {}

void Progress::Update(int done, int total, std::string_view note) {
  if (!terminal_) return;
  absl::FPrintF(out_, "\r%s\x1b[K", ProgressLine(label_, done, total, note));
  std::fflush(out_);
}

void Progress::Clear() {
  if (!terminal_) return;
  std::fputs("\r\x1b[K", out_);
  std::fflush(out_);
}

std::string ProgressLine(std::string_view label, int done, int total, std::string_view note) {
  constexpr int kWidth = 30;
  const int filled = total > 0 ? kWidth * done / total : kWidth;
  return absl::StrFormat("  %-14s [%s%s] %3d %%  %s", label, std::string(filled, '#'),
                         std::string(kWidth - filled, '.'), total > 0 ? 100 * done / total : 100,
                         note);
}

}  // namespace fisherd::trainer
