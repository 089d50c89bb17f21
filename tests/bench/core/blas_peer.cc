#include "tests/bench/core/blas_peer.h"

#include <dlfcn.h>

#include <algorithm>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/bench/core/parallel.h"
#include "tests/bench/core/squares.h"

namespace fisherd::bench {
namespace {

constexpr int kRowMajor = 101;
constexpr int kAsItIs = 111;
constexpr int kTransposed = 112;

template <typename Function>
Function* Find(void* library, const char* name) {
  return reinterpret_cast<Function*>(dlsym(library, name));
}

void Square(const std::vector<const float*>& from, int64_t count, core::ComputePool* helpers,
            float* to) {
  Parallel(helpers, (count + kWorthAThread - 1) / kWorthAThread, [&](int64_t chunk) {
    const int64_t first = chunk * kWorthAThread;
    SumOfSquares(from, first, std::min(first + kWorthAThread, count), to);
  });
}

}  // namespace

void* Blas::Load(const std::string& folder, const std::string& soname) {
  // Debian keeps the variants of a library in folders; the plain name may be the serial one.
  for (const std::string& path :
       {absl::StrCat(FISHERD_BENCH_LIBRARIES, "/", folder, "/", soname), soname}) {
    if (void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL)) return library;
  }
  return nullptr;
}

Blas::Blas(void* library)
    : sgemm_(Find<std::remove_pointer_t<Sgemm>>(library, "cblas_sgemm")),
      sgemv_(Find<std::remove_pointer_t<Sgemv>>(library, "cblas_sgemv")) {}

std::optional<Blas> Blas::OpenBlas() {
  void* library = Load("openblas-pthread", "libopenblas.so.0");
  if (library == nullptr) return std::nullopt;
  Blas blas(library);
  blas.set_threads_ = Find<void(int)>(library, "openblas_set_num_threads");
  if (auto* config = Find<char*()>(library, "openblas_get_config")) blas.description_ = config();
  return blas.complete() ? std::optional(blas) : std::nullopt;
}

std::optional<Blas> Blas::Blis() {
  void* library = Load("blis-pthread", "libblis.so.4");
  if (library == nullptr) return std::nullopt;
  Blas blas(library);
  blas.set_threads_ = Find<void(int64_t)>(library, "bli_thread_set_num_threads");
  auto* version = Find<char*()>(library, "bli_info_get_version_str");
  auto* architecture = Find<int()>(library, "bli_arch_query_id");
  auto* name = Find<char*(int)>(library, "bli_arch_string");
  if (version && architecture && name) {
    blas.description_ = absl::StrCat("BLIS ", version(), " ", name(architecture()));
  }
  return blas.complete() ? std::optional(blas) : std::nullopt;
}

void Blas::Step(Problem& problem, core::ComputePool* helpers) const {
  const Case& sizes = problem.sizes;
  const int64_t depth = sizes.depth();
  Square({problem.inputs()}, depth * sizes.inputs, helpers, problem.squared_inputs());
  std::vector<const float*> grads;
  for (int source = 0; source < sizes.sources; ++source) grads.push_back(problem.grads(source));
  Square(grads, depth * sizes.outputs, helpers, problem.squared_grads());

  set_threads_(sizes.threads);
  const auto alpha = static_cast<float>(kWeight * problem.scale());
  const auto beta = static_cast<float>(kDecay);
  const int rows = depth, inputs = sizes.inputs, outputs = sizes.outputs;
  sgemm_(kRowMajor, kTransposed, kAsItIs, inputs, outputs, rows, alpha, problem.squared_inputs(),
         inputs, problem.squared_grads(), outputs, beta, problem.state(), outputs);
  if (!sizes.bias) return;
  sgemv_(kRowMajor, kTransposed, rows, outputs, alpha, problem.squared_grads(), outputs,
         problem.ones(), 1, beta, problem.state() + sizes.inputs * sizes.outputs, 1);
}

}  // namespace fisherd::bench
