// Any bytes as records of a manifest: what they say is damage, or an image that can be written
// again as the same.

#include <cstdint>
#include <cstdlib>
#include <string>

#include "server/store/records.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fisherd;
  using namespace fisherd::server;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  store::v1::Generation generation;
  if (generation.ParseFromString(bytes)) {
    if (const auto image = ToImage("f", generation); image.ok()) {
      const auto again = ToImage("f", ToGeneration(*image));
      if (!again.ok() || again->spec != image->spec || !(again->plan == image->plan)) abort();
    }
  }
  store::v1::Factor factor;
  if (factor.ParseFromString(bytes)) {
    if (const auto image = ToImage("f", factor); image.ok() && image->ledgers.empty()) abort();
  }
  const ParsedKey key = ParseKey(bytes);
  if (key.name.size() + key.rest.size() > size) abort();
  return 0;
}
