#include <cstdio>
#include <span>
#include <string_view>

#include "client/trainer/demo.h"
#include "client/trainer/options.h"
#include "client/trainer/tower.h"

int main(int argc, char** argv) {
  const std::span<const char* const> arguments(argv + 1, argc - 1);
  for (const std::string_view argument : arguments) {
    if (argument == "--help") {
      std::fputs(fisherd::trainer::kUsage, stdout);
      return 0;
    }
  }
  absl::StatusOr<fisherd::trainer::Options> options = fisherd::trainer::ParseOptions(arguments);
  if (!options.ok()) {
    std::fprintf(stderr, "fisherd-trainer: %s\n\n%s",
                 std::string(options.status().message()).c_str(), fisherd::trainer::kUsage);
    return 2;
  }
  absl::Status status = options->command == "train" ? fisherd::trainer::RunTower(*options)
                                                    : fisherd::trainer::RunDemo(*options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "fisherd-trainer: %s\n", status.ToString().c_str());
  return 1;
}
