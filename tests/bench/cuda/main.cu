// Checks the CUDA kernels against 64-bit arithmetic, then times them beside cuBLAS. Needs a GPU and
// nothing else of this machine: see ./dev bench cuda.

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "tests/bench/cuda/checks.h"
#include "tests/bench/cuda/contest.h"
#include "tests/bench/cuda/device.h"

namespace {

constexpr int kSkipped = 77;

int Usage(std::FILE* to) {
  std::fputs(
      "usage: cuda_bench [--check | --check-quick | --bench] [--json FILE]\nchecks and times, or "
      "one of them\n",
      to);
  return to == stdout ? 0 : 2;
}

}  // namespace

int main(int argc, char** argv) {
  bool check = true, quick = false, bench = true;
  std::string json;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--help") return Usage(stdout);
    if (argument == "--json" && i + 1 < argc) {
      json = argv[++i];
    } else if (argument == "--check" || argument == "--check-quick") {
      bench = false;
      quick = argument == "--check-quick";
    } else if (argument == "--bench") {
      check = false;
    } else {
      return Usage(stderr);
    }
  }
  int devices = 0;
  const cudaError_t found = cudaGetDeviceCount(&devices);
  if (found != cudaSuccess || devices == 0) {
    std::printf("skipped: no GPU (%s)\n",
                found == cudaSuccess ? "none is there" : cudaGetErrorString(found));
    return kSkipped;
  }
  if (check && fisherd::cuda::RunChecks(quick) > 0) return 1;
  if (bench) {
    const std::string figures = fisherd::cuda::RunContest();
    if (!json.empty()) std::ofstream(json) << figures;
  }
  return 0;
}
