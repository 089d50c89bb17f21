#include "server/frame_decoder.h"

#include <algorithm>
#include <cstddef>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"
#include "core/error.h"

namespace fisherd::server {
namespace {

enum WireType : uint32_t {
  kVarint = 0,
  kFixed64 = 1,
  kLengthDelimited = 2,
  kStartGroup = 3,
  kEndGroup = 4,
  kFixed32 = 5,
};

constexpr uint32_t Tag(uint32_t field, WireType type) { return field << 3 | type; }
constexpr uint32_t kRowsTag = Tag(v1::UpdateRequest::kRowsFieldNumber, WireType::kLengthDelimited);
constexpr uint32_t kDataTag = Tag(v1::BatchRows::kDataFieldNumber, WireType::kLengthDelimited);

void AppendVarint(uint64_t value, std::string& out) {
  for (; value >= 0x80; value >>= 7) out += static_cast<char>(value | 0x80);
  out += static_cast<char>(value);
}

// Walks the fields of the message and of its `rows`. It knows no more of the wire format than where
// a field ends; functions are false once error() says why.
class Scanner {
 public:
  Scanner(std::span<const std::string_view> slices, UpdateFrame& frame)
      : slices_(slices), frame_(frame) {
    for (const std::string_view slice : slices) size_ += static_cast<int64_t>(slice.size());
  }

  // Copies the message without its payload to `control`.
  bool ScanMessage(std::string& control) {
    while (position_ < size_) {
      uint32_t tag;
      if (!ReadTag(size_, tag)) return false;
      if (tag != kRowsTag) {
        if (!CopyField(tag, size_, control)) return false;
        continue;
      }
      int64_t length;
      std::string rows;
      if (!ReadLength(size_, length) || !ScanRows(position_ + length, rows)) return false;
      AppendVarint(kRowsTag, control);
      AppendVarint(rows.size(), control);
      control += rows;
    }
    return true;
  }

  const std::string& error() const { return error_; }

 private:
  bool Fail(std::string_view what) {
    error_ = absl::StrFormat("byte %d of the message's %d: %s", position_, size_, what);
    return false;
  }

  bool ScanRows(int64_t end, std::string& rows) {
    while (position_ < end) {
      uint32_t tag;
      if (!ReadTag(end, tag)) return false;
      if (tag != kDataTag) {
        if (!CopyField(tag, end, rows)) return false;
        continue;
      }
      int64_t length;
      if (!ReadLength(end, length)) return false;
      frame_.payload.clear();
      frame_.payload_bytes = length;
      Take(length, [&](std::string_view piece) { frame_.payload.push_back(piece); });
    }
    return true;
  }

  // A group is copied whole; protobuf judges what is in it, and how deep.
  bool CopyField(uint32_t tag, int64_t end, std::string& out) {
    for (int64_t open_groups = 0;;) {
      AppendVarint(tag, out);
      if (!CopyValue(tag, end, open_groups, out)) return false;
      if (open_groups == 0) return true;
      if (!ReadTag(end, tag)) return false;
    }
  }

  bool CopyValue(uint32_t tag, int64_t end, int64_t& open_groups, std::string& out) {
    switch (tag & 7) {
      case kVarint: {
        uint64_t value;
        if (!ReadVarint(end, 10, value)) return false;
        AppendVarint(value, out);
        return true;
      }
      case kFixed64:
        return Copy(8, end, out);
      case kLengthDelimited: {
        int64_t length;
        if (!ReadLength(end, length)) return false;
        AppendVarint(length, out);
        return Copy(length, end, out);
      }
      case kStartGroup:
        ++open_groups;
        return true;
      case kEndGroup:
        if (open_groups-- == 0) return Fail("a group ends that has not begun");
        return true;
      case kFixed32:
        return Copy(4, end, out);
      default:
        return Fail(absl::StrFormat("wire type %d, which protobuf does not have", tag & 7));
    }
  }

  // Varints as protobuf's parser takes them: not necessarily the shortest form, upper bits dropped.
  bool ReadVarint(int64_t end, int max_bytes, uint64_t& value) {
    value = 0;
    for (int i = 0; i < max_bytes; ++i) {
      if (position_ >= end) return Fail("ends within a number");
      uint8_t byte = 0;
      Take(1, [&](std::string_view piece) { byte = static_cast<uint8_t>(piece[0]); });
      value |= uint64_t{byte & 0x7Fu} << (7 * i);
      if (byte < 0x80) return true;
    }
    return Fail(absl::StrFormat("a number of more than %d bytes", max_bytes));
  }

  bool ReadTag(int64_t end, uint32_t& tag) {
    uint64_t value;
    if (!ReadVarint(end, 5, value)) return false;
    tag = static_cast<uint32_t>(value);
    return tag >> 3 != 0 || Fail("field number 0");
  }

  bool ReadLength(int64_t end, int64_t& length) {
    uint64_t value;
    if (!ReadVarint(end, 5, value)) return false;
    length = static_cast<int64_t>(value);
    return CheckLeft(length, end);
  }

  bool CheckLeft(int64_t bytes, int64_t end) {
    if (bytes <= end - position_) return true;
    return Fail(absl::StrFormat("a field of %d bytes, where %d are left", bytes, end - position_));
  }

  bool Copy(int64_t bytes, int64_t end, std::string& out) {
    if (!CheckLeft(bytes, end)) return false;
    if (static_cast<int64_t>(out.size()) + bytes > kMaxControlBytes) {
      return Fail(absl::StrFormat("more than %d bytes beside the payload", kMaxControlBytes));
    }
    Take(bytes, [&](std::string_view piece) { out += piece; });
    return true;
  }

  // Moves on by `bytes`, which are there, and hands out the pieces that they come in.
  template <typename Use>
  void Take(int64_t bytes, Use use) {
    position_ += bytes;
    while (bytes > 0) {
      const std::string_view left = slices_[slice_].substr(offset_);
      const std::string_view piece = left.substr(0, static_cast<size_t>(bytes));
      if (!piece.empty()) use(piece);
      bytes -= static_cast<int64_t>(piece.size());
      offset_ += piece.size();
      if (piece.size() == left.size()) {
        ++slice_;
        offset_ = 0;
      }
    }
  }

  const std::span<const std::string_view> slices_;
  UpdateFrame& frame_;
  int64_t size_ = 0;
  int64_t position_ = 0;  // from the message's first byte
  size_t slice_ = 0;      // where that is
  size_t offset_ = 0;
  std::string error_;
};

absl::Status Malformed(std::string_view what) {
  return core::MakeError(absl::StatusCode::kInvalidArgument, core::reason::kMalformedFrame,
                         absl::StrFormat("not a fisherd.v1.UpdateRequest: %s", what));
}

}  // namespace

absl::StatusOr<UpdateFrame> DecodeUpdate(std::span<const std::string_view> slices) {
  UpdateFrame frame;
  std::string control;
  Scanner scanner(slices, frame);
  if (!scanner.ScanMessage(control)) return Malformed(scanner.error());
  if (static_cast<int64_t>(control.size()) > kMaxControlBytes) {
    return Malformed(absl::StrFormat("%d bytes beside the payload; at most %d are allowed",
                                     control.size(), kMaxControlBytes));
  }
  if (!frame.message.ParseFromString(control)) {
    return Malformed("a field's content is not what its type asks for (names are UTF-8)");
  }
  return frame;
}

}  // namespace fisherd::server
