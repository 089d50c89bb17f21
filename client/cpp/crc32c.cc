#include "client/cpp/crc32c.h"

#include <isa-l/crc.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <limits>

namespace fisherd {
namespace {

// ISA-L leaves the upper halves of vector registers in use; until they are cleared, whatever this
// thread runs that was compiled for SSE, as the digest is, takes several times as long.
#if defined(__x86_64__)
__attribute__((target("avx"))) void ZeroUpper() { _mm256_zeroupper(); }
void ClearUpperHalves() {
  if (__builtin_cpu_supports("avx")) ZeroUpper();
}
#else
void ClearUpperHalves() {}
#endif

}  // namespace

uint32_t Crc32c(std::string_view bytes) {
  uint32_t crc = ~uint32_t{0};
  while (!bytes.empty()) {  // ISA-L counts in int
    const size_t count = std::min<size_t>(bytes.size(), std::numeric_limits<int>::max());
    auto* begin = reinterpret_cast<unsigned char*>(const_cast<char*>(bytes.data()));
    crc = crc32_iscsi(begin, static_cast<int>(count), crc);
    bytes.remove_prefix(count);
  }
  ClearUpperHalves();
  return ~crc;
}

}  // namespace fisherd
