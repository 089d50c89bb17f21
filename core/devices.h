// The devices of this machine that this build can use.

#ifndef FISHERD_CORE_DEVICES_H_
#define FISHERD_CORE_DEVICES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/backend.h"

namespace fisherd::core {

struct DeviceOptions {
  int64_t memory = 0;  // bytes of each device's that are used; 0: what is free, but for a part
  bool tf32 = false;   // FLOAT32 products of 11-bit numbers: errors up to 1e-3 instead of 1e-6
};

// A backend with memory of its own. Thread-safe.
class DeviceBackend : public Backend {
 public:
  // "cuda:0".
  virtual std::string device() const = 0;
  // Bytes of its memory for states, pinned versions and results.
  virtual int64_t state_budget() const = 0;

  struct Stats {
    int64_t memory_bytes = 0;  // the device's
    int64_t free_bytes = 0;
    double kernel_seconds = 0;  // since the start, as are the rest
    double copy_seconds = 0;
    int64_t bytes_to_device = 0;
    int64_t bytes_from_device = 0;
    int64_t pinned_bytes = 0;  // of host memory now, for batches
  };
  virtual Stats stats() const = 0;
};

struct Devices {
  std::vector<std::unique_ptr<DeviceBackend>> found;
  std::string why_none;  // if there are none: for the log
};
Devices FindDevices(const DeviceOptions& options);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_DEVICES_H_
