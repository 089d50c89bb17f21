// Batches as they travel, made ahead of time.

#ifndef FISHERD_TESTS_BENCH_STREAM_ENCODED_H_
#define FISHERD_TESTS_BENCH_STREAM_ENCODED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "client/cpp/batch_frames.h"

namespace fisherd::bench {

// The messages of a batch of kLayerSize inputs and outputs, as the client library sends them.
std::vector<std::string> EncodeBytes(const BatchIdentity& identity, const Batch& batch);
// Of any batch.
std::vector<std::string> EncodeOne(int64_t batch_bytes);

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_STREAM_ENCODED_H_
