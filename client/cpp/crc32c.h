// The checksum of tensors on the wire.

#ifndef FISHERD_CLIENT_CRC32C_H_
#define FISHERD_CLIENT_CRC32C_H_

#include <cstdint>
#include <string_view>

namespace fisherd {

// CRC-32C (Castagnoli), as in iSCSI and SCTP.
uint32_t Crc32c(std::string_view bytes);

}  // namespace fisherd

#endif  // FISHERD_CLIENT_CRC32C_H_
