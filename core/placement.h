// Whose memory a factor's state lives in: the host's, or a device's.

#ifndef FISHERD_CORE_PLACEMENT_H_
#define FISHERD_CORE_PLACEMENT_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/status/statusor.h"
#include "core/backend.h"
#include "core/byte_budget.h"
#include "core/factor_spec.h"

namespace fisherd::core {

// A backend, and what states, pinned versions and results may take of its memory.
struct BackendMemory {
  Backend* backend = nullptr;
  int64_t state_budget = 0;  // bytes
};

// Thread-safe. The backends outlive it.
class Placement {
 public:
  struct Home {
    Backend* const backend;
    ByteBudget budget;
    int64_t left() const { return budget.limit() - budget.used(); }
  };

  // Whoever does not say gets `usual`; kAny: the device with the most room if that is enough, else
  // the host.
  Placement(const BackendMemory& host, std::span<const BackendMemory> devices,
            BackendChoice usual = BackendChoice::kAny);

  // Where a factor that takes `bytes` goes. Whether there is room for it is for its budget to say:
  // this is where the most is. Lost devices do not count. FAILED_PRECONDITION (NO_DEVICE) if it
  // asks for a device and there is none.
  absl::StatusOr<Home*> Choose(BackendChoice wanted, int64_t bytes);
  // The same for one that was there before: if there is no device any more, the host.
  Home& ChooseAgain(BackendChoice wanted, int64_t bytes);

  Home& host() { return *host_; }
  const Home& host() const { return *host_; }
  const std::vector<std::unique_ptr<Home>>& devices() const { return devices_; }

 private:
  // Null: there is none.
  Home* Roomiest() const;

  const std::unique_ptr<Home> host_;
  std::vector<std::unique_ptr<Home>> devices_;
  const BackendChoice usual_;
};

}  // namespace fisherd::core

#endif  // FISHERD_CORE_PLACEMENT_H_
