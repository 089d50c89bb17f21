#include "core/devices.h"

#ifdef FISHERD_CUDA
#include "core/backend_cuda.h"
#endif

namespace fisherd::core {

Devices FindDevices(const DeviceOptions& options) {
#ifdef FISHERD_CUDA
  return FindCudaDevices(options);
#else
  static_cast<void>(options);
  return {.found = {}, .why_none = "this build has no CUDA"};
#endif
}

}  // namespace fisherd::core
