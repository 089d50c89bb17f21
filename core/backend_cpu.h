// The processor as a backend: the kernels, spread over a pool in tiles of the state.

#ifndef FISHERD_CORE_BACKEND_CPU_H_
#define FISHERD_CORE_BACKEND_CPU_H_

#include <string>

#include "core/backend.h"
#include "core/compute_pool.h"

namespace fisherd::core {

// Every element of the state is computed by itself, so the tiles and the threads that work on them
// leave no trace in its bits. Thread-safe.
class BackendCpu final : public Backend {
 public:
  // Spreads large steps over `pool`, which must outlive it; null computes in the calling thread.
  explicit BackendCpu(ComputePool* pool) : pool_(pool) {}

  // Names the instruction set that the kernels run on.
  std::string name() const override;
  double Advance(const AdvanceStep& step, const Matrix& from, Matrix& to) override;

 private:
  ComputePool* const pool_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BACKEND_CPU_H_
