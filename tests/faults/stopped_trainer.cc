#include "tests/faults/stopped_trainer.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "tests/faults/fault_test.h"

namespace fisherd::faults {
namespace {

trainer::Subprocess Start(int port, const std::string& factor, int tower, int64_t steps,
                          const std::string& log) {
  auto process = trainer::Subprocess::Start({"/proc/self/exe", "--trainer", absl::StrCat(port),
                                             factor, absl::StrCat(tower), absl::StrCat(steps)},
                                            {.inherited = -1, .log = log});
  EXPECT_TRUE(process.ok()) << process.status();
  return *std::move(process);
}

}  // namespace

int RunTrainer(int port, const std::string& factor, int tower, int64_t steps) {
  const Training training = {.layer = {}, .factors = {factor}, .towers = 2, .steps = steps};
  Tower self(training, factor, tower, port);
  self.WriteThrough(steps);
  const auto counted = Counted({&self}, steps);
  for (int64_t step = 1; step <= steps; ++step) {
    if (!counted[static_cast<size_t>(step - 1)].empty()) std::cout << step << "\n";
  }
  return testing::Test::HasFailure() ? 1 : 0;
}

TrainerProcess::TrainerProcess(int port, const std::string& factor, int tower, int64_t steps)
    : log_(absl::StrCat(testing::TempDir(), "fisherd_stopped_trainer_", getpid())),
      process_(Start(port, factor, tower, steps, log_)) {}

TrainerProcess::~TrainerProcess() {
  if (process_.pid() >= 0) Wake();
}

void TrainerProcess::Stop() {
  kill(process_.pid(), SIGSTOP);
  siginfo_t info;
  EXPECT_EQ(waitid(P_PID, static_cast<id_t>(process_.pid()), &info, WSTOPPED | WNOWAIT), 0);
}

void TrainerProcess::Wake() { kill(process_.pid(), SIGCONT); }

std::vector<int64_t> TrainerProcess::Wait() {
  const absl::Status ended = process_.Wait();
  std::ifstream log(log_);
  std::vector<int64_t> steps(std::istream_iterator<int64_t>(log), {});
  EXPECT_TRUE(ended.ok() && log.eof()) << ended << std::ifstream(log_).rdbuf();
  std::remove(log_.c_str());
  return steps;
}

}  // namespace fisherd::faults
