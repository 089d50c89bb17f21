// GPUs as backends, where the build has CUDA: states, results and products on the card, batches in
// host memory that it reads fast.

#ifndef FISHERD_CORE_BACKEND_CUDA_H_
#define FISHERD_CORE_BACKEND_CUDA_H_

#include "core/devices.h"

namespace fisherd::core {

// Every card that the kernels run on, in the driver's order. A step's batches are copied to the
// card when it is computed, while another step computes; its towers' rows become one product.
//
// FLOAT32 products are made as core/cuda/advance.h says: within 1e-6 of the exact sum up to 4096
// rows (with tf32, 1e-3). The same bits each time for the same rows, on the same kind of card, and
// not those of the processor.
Devices FindCudaDevices(const DeviceOptions& options);

}  // namespace fisherd::core

#endif  // FISHERD_CORE_BACKEND_CUDA_H_
