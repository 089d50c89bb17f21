#include "core/error.h"

#include <array>
#include <cstdint>
#include <utility>

#include "absl/strings/cord.h"

namespace fisherd::core {
namespace {

constexpr absl::string_view kTypeUrl = "fisherd.core.ErrorDetails";

// The payload: fields, each a length of four bytes and as many bytes. First the reason, then
// retry_after as text (empty if there is none), then key and value of every metadata entry.
void AppendField(std::string_view field, std::string& out) {
  const auto size = static_cast<uint32_t>(field.size());
  for (int shift = 0; shift < 32; shift += 8) out += static_cast<char>(size >> shift);
  out.append(field);
}

std::optional<std::string> TakeField(std::string_view& in) {
  if (in.size() < 4) return std::nullopt;
  uint32_t size = 0;
  for (int i = 0; i < 4; ++i) size |= uint32_t{static_cast<uint8_t>(in[i])} << (8 * i);
  in.remove_prefix(4);
  if (in.size() < size) return std::nullopt;
  std::string field(in.substr(0, size));
  in.remove_prefix(size);
  return field;
}

std::string Encode(const ErrorDetails& details) {
  std::string out;
  AppendField(details.reason, out);
  AppendField(details.retry_after ? absl::FormatDuration(*details.retry_after) : "", out);
  for (const auto& [key, value] : details.metadata) {
    AppendField(key, out);
    AppendField(value, out);
  }
  return out;
}

std::optional<ErrorDetails> Decode(std::string_view in) {
  std::optional<std::string> reason = TakeField(in);
  std::optional<std::string> retry_after = TakeField(in);
  if (!reason || !retry_after) return std::nullopt;
  ErrorDetails details{.reason = *std::move(reason), .metadata = {}, .retry_after = {}};
  absl::Duration duration;
  if (absl::ParseDuration(*retry_after, &duration)) details.retry_after = duration;
  while (!in.empty()) {
    std::optional<std::string> key = TakeField(in);
    std::optional<std::string> value = TakeField(in);
    if (!key || !value) return std::nullopt;
    details.metadata.emplace(*std::move(key), *std::move(value));
  }
  return details;
}

}  // namespace

absl::Status MakeError(absl::StatusCode code, std::string_view message, ErrorDetails details) {
  absl::Status status(code, std::string(message));
  status.SetPayload(kTypeUrl, absl::Cord(Encode(details)));
  return status;
}

absl::Status MakeError(absl::StatusCode code, std::string_view reason, std::string_view message,
                       std::map<std::string, std::string> metadata) {
  return MakeError(code, message,
                   ErrorDetails{.reason = std::string(reason),
                                .metadata = std::move(metadata),
                                .retry_after = std::nullopt});
}

absl::Status BadArgument(std::string_view field, std::string_view message) {
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kBadArgument, message,
                   {{"field", std::string(field)}});
}

std::optional<ErrorDetails> GetErrorDetails(const absl::Status& status) {
  const absl::optional<absl::Cord> payload = status.GetPayload(kTypeUrl);
  if (!payload) return std::nullopt;
  return Decode(std::string(*payload));
}

absl::Status WithMetadata(absl::Status status, std::string_view key, std::string_view value) {
  std::optional<ErrorDetails> details = GetErrorDetails(status);
  if (details && details->metadata.emplace(key, value).second) {
    status.SetPayload(kTypeUrl, absl::Cord(Encode(*details)));
  }
  return status;
}

}  // namespace fisherd::core
