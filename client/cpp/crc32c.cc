#include "client/cpp/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <limits>

namespace fisherd {

uint32_t Crc32c(std::string_view bytes) {
  uint32_t crc = ~uint32_t{0};
  while (!bytes.empty()) {  // ISA-L counts in int
    const size_t count = std::min<size_t>(bytes.size(), std::numeric_limits<int>::max());
    auto* begin = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
    crc = crc32_iscsi(begin, static_cast<int>(count), crc);
    bytes.remove_prefix(count);
  }
  return ~crc;
}

}  // namespace fisherd
