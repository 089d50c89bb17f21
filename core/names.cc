#include "core/names.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "core/error.h"

namespace fisherd::core {
namespace {

constexpr size_t kMaxEscapedBytes = 64;

// Takes the first character off UTF-8 text; nullopt if it does not start with one.
std::optional<uint32_t> TakeCharacter(std::string_view& text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t lead = byte(0);
  const int size = lead < 0x80             ? 1
                   : (lead & 0xE0) == 0xC0 ? 2
                   : (lead & 0xF0) == 0xE0 ? 3
                   : (lead & 0xF8) == 0xF0 ? 4
                                           : 0;
  if (size == 0 || text.size() < size) return std::nullopt;
  uint32_t character = size == 1 ? lead : lead & (0x7F >> size);
  for (int i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return std::nullopt;
    character = character << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  const bool surrogate = character >= 0xD800 && character <= 0xDFFF;
  if (character < kSmallest[size] || character > 0x10FFFF || surrogate) return std::nullopt;
  text.remove_prefix(size);
  return character;
}

bool IsControl(uint32_t character) {
  return character < 0x20 || (character >= 0x7F && character <= 0x9F);
}

// What is wrong with the characters of `text`, or nothing.
std::string_view CharacterFault(std::string_view text) {
  while (!text.empty()) {
    const std::optional<uint32_t> character = TakeCharacter(text);
    if (!character) return "it is not UTF-8";
    if (IsControl(*character)) return "it has a control character";
  }
  return {};
}

std::string_view NameFault(std::string_view name) {
  if (name.empty()) return "it is empty";
  if (name.size() > kMaxNameBytes) return "it is too long";
  if (const std::string_view fault = CharacterFault(name); !fault.empty()) return fault;
  const std::vector<std::string> levels = absl::StrSplit(std::string(name), '/');
  for (const std::string& level : levels) {
    if (level.empty()) return "it has an empty level";
    if (level == "." || level == "..") return "it has a level '.' or '..'";
  }
  return {};
}

}  // namespace

std::string Quote(std::string_view name) {
  if (name.size() <= kMaxNameBytes && CharacterFault(name).empty()) {
    return absl::StrFormat("\"%s\"", name);
  }
  const std::string escaped = absl::CHexEscape(std::string(name.substr(0, kMaxEscapedBytes)));
  if (name.size() <= kMaxEscapedBytes) return absl::StrFormat("\"%s\"", escaped);
  return absl::StrFormat("\"%s\"… (%d bytes)", escaped, name.size());
}

absl::Status CheckName(std::string_view field, std::string_view name) {
  const std::string_view fault = NameFault(name);
  if (fault.empty()) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, reason::kBadName,
                   absl::StrFormat("%s %s is not a name: %s; expected 1 to %d bytes of UTF-8 "
                                   "without control characters, in levels between '/' that are not "
                                   "empty, '.' or '..'",
                                   field, Quote(name), fault, kMaxNameBytes),
                   {{"field", std::string(field)}});
}

}  // namespace fisherd::core
