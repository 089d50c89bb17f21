// A trainer in a process of its own, which can be stopped as by a debugger or a full disk.

#ifndef FISHERD_TESTS_FAULTS_STOPPED_TRAINER_H_
#define FISHERD_TESTS_FAULTS_STOPPED_TRAINER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/trainer/subprocess.h"

namespace fisherd::faults {

// The process: writes steps 1 to `steps` of a tower, skipping those that ended without it, and
// prints those that it was told it had counted in. Exits 0 if nothing else went wrong.
int RunTrainer(int port, const std::string& factor, int tower, int64_t steps);

// Starts it, and stops and wakes it.
class TrainerProcess {
 public:
  TrainerProcess(int port, const std::string& factor, int tower, int64_t steps);
  ~TrainerProcess();

  // Returns when all of its threads stand still.
  void Stop();
  void Wake();
  // Waits for its end; what it printed.
  std::vector<int64_t> Wait();

 private:
  const std::string log_;
  trainer::Subprocess process_;
};

}  // namespace fisherd::faults

#endif  // FISHERD_TESTS_FAULTS_STOPPED_TRAINER_H_
