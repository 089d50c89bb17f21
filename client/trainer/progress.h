// A progress bar on one line of a terminal; nothing where there is none.

#ifndef FISHERD_TRAINER_PROGRESS_H_
#define FISHERD_TRAINER_PROGRESS_H_

#include <cstdio>
#include <string>
#include <string_view>

namespace fisherd::trainer {

// Not thread-safe.
class Progress {
 public:
  // Draws on `out` if it is a terminal.
  Progress(std::FILE* out, std::string label);
  ~Progress() { Clear(); }
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void Update(int done, int total, std::string_view note);
  // Leaves an empty line for what is printed next.
  void Clear();

 private:
  std::FILE* const out_;
  const std::string label_;
  const bool terminal_;
};

// "SGD  [#####.....]  50 %  note"
std::string ProgressLine(std::string_view label, int done, int total, std::string_view note);

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_PROGRESS_H_
