// Any bytes, cut anywhere: the decoder must say what protobuf says of them.
//
// The last byte of the input is the number of cuts, each two before it the place of one; what is
// left is the message.

#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "google/protobuf/stubs/logging.h"
#include "server/frame_decoder.h"

namespace fisherd::server {
namespace {

void Require(bool condition) {
  if (!condition) std::abort();
}

std::vector<std::string_view> Cut(std::string_view message, std::vector<size_t> places) {
  std::sort(places.begin(), places.end());
  std::vector<std::string_view> slices;
  size_t begin = 0;
  for (const size_t place : places) {
    const size_t end = std::min(place, message.size());
    slices.push_back(message.substr(begin, end - begin));
    begin = end;
  }
  slices.push_back(message.substr(begin));
  return slices;
}

void CompareWithProtobuf(std::string_view bytes, const std::vector<std::string_view>& slices) {
  const absl::StatusOr<UpdateFrame> frame = DecodeUpdate(slices);
  v1::UpdateRequest expected;
  Require(frame.ok() == expected.ParseFromArray(bytes.data(), static_cast<int>(bytes.size())));
  if (!frame.ok()) return;
  std::string payload;
  for (const std::string_view piece : frame->payload) payload += piece;
  Require(static_cast<int64_t>(payload.size()) == frame->payload_bytes);
  Require(payload == expected.rows().data());
  if (expected.has_rows()) expected.mutable_rows()->clear_data();
  // By their bytes: a NaN is not equal to itself.
  Require(frame->message.SerializeAsString() == expected.SerializeAsString());
}

}  // namespace
}  // namespace fisherd::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const google::protobuf::LogSilencer names_that_are_not_utf8;
  FuzzedDataProvider input(data, size);
  std::vector<size_t> places;
  for (int cuts = input.ConsumeIntegral<uint8_t>(); cuts > 0; --cuts) {
    places.push_back(input.ConsumeIntegral<uint16_t>());
  }
  const std::string message = input.ConsumeRemainingBytesAsString();
  // Beyond it the decoder refuses what protobuf takes.
  if (message.size() > static_cast<size_t>(fisherd::server::kMaxControlBytes)) return 0;
  fisherd::server::CompareWithProtobuf(message, fisherd::server::Cut(message, places));
  return 0;
}
