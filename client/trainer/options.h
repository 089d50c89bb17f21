// The command line of fisherd-trainer.

#ifndef FISHERD_TRAINER_OPTIONS_H_
#define FISHERD_TRAINER_OPTIONS_H_

#include <cstdint>
#include <span>
#include <string>

#include "absl/status/statusor.h"

namespace fisherd::trainer {

struct Options {
  std::string command;  // demo, tune, train

  // demo and tune.
  std::string fisherd = "fisherd";  // the server's program
  std::string out = ".";            // the folder of the picture and the server's log
  bool keep = false;                // let the server run until Ctrl-C

  // All; `server` empty: demo and tune start one.
  std::string server;
  std::string data = "client/trainer/data/digits.csv.gz";
  int epochs = 30;
  uint32_t seed = 1;

  // train: what demo and tune run twice.
  int tower = 0;
  int link = -1;      // socket to the other tower
  bool tune = false;  // run the grids instead of the tuned methods
};

// INVALID_ARGUMENT, saying which argument and what was expected.
absl::StatusOr<Options> ParseOptions(std::span<const char* const> arguments);

extern const char kUsage[];

}  // namespace fisherd::trainer

#endif  // FISHERD_TRAINER_OPTIONS_H_
