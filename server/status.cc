#include "server/status.h"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "core/error.h"
#include "google/protobuf/util/time_util.h"
#include "google/rpc/error_details.pb.h"

namespace fisherd::server {
namespace {

// Bytes of the UTF-8 character that `text` (not empty) begins with; 0 if it begins with none.
size_t CharacterBytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t size = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < size) return 0;
  for (size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Overlong forms, surrogates, and beyond U+10FFFF.
  if (first == 0xE0 && byte(1) < 0xA0) return 0;
  if (first == 0xED && byte(1) > 0x9F) return 0;
  if (first == 0xF0 && byte(1) < 0x90) return 0;
  if (first == 0xF4 && byte(1) > 0x8F) return 0;
  return size;
}

// A call's status travels percent-encoded and, as its details, in base64.
constexpr size_t kMaxMessageBytes = 1024;
constexpr size_t kMaxMetadataBytes = 256;

}  // namespace

std::string Utf8Prefix(std::string_view text, size_t max_bytes) {
  std::string prefix;
  prefix.reserve(std::min(text.size(), max_bytes));
  while (!text.empty()) {
    const size_t size = CharacterBytes(text);
    const std::string_view next = size == 0 ? "?" : text.substr(0, size);
    if (prefix.size() + next.size() > max_bytes) break;
    prefix.append(next);
    text.remove_prefix(size == 0 ? 1 : size);
  }
  return prefix;
}

google::rpc::Status ToRpcStatus(const absl::Status& status) {
  google::rpc::Status result;
  result.set_code(static_cast<int>(status.code()));
  result.set_message(
      Utf8Prefix({status.message().data(), status.message().size()}, kMaxMessageBytes));
  const auto details = core::GetErrorDetails(status);
  if (!details.has_value()) return result;

  google::rpc::ErrorInfo info;
  info.set_reason(details->reason);
  info.set_domain(std::string(kErrorDomain));
  for (const auto& [key, value] : details->metadata) {
    (*info.mutable_metadata())[Utf8Prefix(key, kMaxMetadataBytes)] =
        Utf8Prefix(value, kMaxMetadataBytes);
  }
  result.add_details()->PackFrom(info);
  if (details->retry_after.has_value()) {
    google::rpc::RetryInfo retry;
    *retry.mutable_retry_delay() = google::protobuf::util::TimeUtil::MillisecondsToDuration(
        absl::ToInt64Milliseconds(*details->retry_after));
    result.add_details()->PackFrom(retry);
  }
  return result;
}

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  const google::rpc::Status rpc_status = ToRpcStatus(status);
  return grpc::Status(static_cast<grpc::StatusCode>(rpc_status.code()), rpc_status.message(),
                      rpc_status.SerializeAsString());
}

}  // namespace fisherd::server
