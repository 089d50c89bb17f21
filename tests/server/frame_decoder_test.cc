#include "server/frame_decoder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "core/error.h"
#include "google/protobuf/stubs/logging.h"
#include "google/protobuf/util/message_differencer.h"

namespace fisherd::server {
namespace {

using ::google::protobuf::util::MessageDifferencer;
using ::testing::HasSubstr;

std::string Payload(const UpdateFrame& frame) {
  std::string payload;
  for (const std::string_view piece : frame.payload) {
    EXPECT_FALSE(piece.empty());
    payload += piece;
  }
  EXPECT_EQ(payload.size(), frame.payload_bytes);
  return payload;
}

absl::StatusOr<UpdateFrame> Decode(const std::string& bytes) {
  const std::string_view slice = bytes;
  return DecodeUpdate({&slice, 1});
}

// What protobuf makes of the same bytes is what the decoder must make of them.
void ExpectLikeProtobuf(const std::string& bytes) {
  const google::protobuf::LogSilencer names_that_are_not_utf8;
  v1::UpdateRequest expected;
  const bool valid = expected.ParseFromString(bytes);
  auto frame = Decode(bytes);
  ASSERT_EQ(frame.ok(), valid) << frame.status();
  if (!valid) return;
  EXPECT_EQ(Payload(*frame), expected.rows().data());
  if (expected.has_rows()) expected.mutable_rows()->clear_data();
  EXPECT_TRUE(MessageDifferencer::Equals(frame->message, expected))
      << frame->message.DebugString() << expected.DebugString();
}

void ExpectMalformed(const std::string& bytes, const std::string& message) {
  const google::protobuf::LogSilencer names_that_are_not_utf8;
  const auto frame = Decode(bytes);
  ASSERT_FALSE(frame.ok());
  EXPECT_EQ(frame.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(core::GetErrorDetails(frame.status())->reason, core::reason::kMalformedFrame);
  EXPECT_THAT(std::string(frame.status().message()), HasSubstr(message));
}

v1::UpdateRequest Everything() {
  v1::UpdateRequest message;
  message.mutable_hello()->set_client_id("0123456789abcdef");
  message.mutable_hello()->set_stream(300);
  message.mutable_open()->set_factor("mlp/λ");
  message.mutable_open()->set_tower(-1);
  message.mutable_header()->set_step(1 << 20);
  message.mutable_header()->set_decay(0.95);
  message.mutable_header()->add_tensors()->add_shape(7);
  message.mutable_rows()->set_first_row(2);
  message.mutable_rows()->set_row_count(5);
  message.mutable_rows()->set_crc32c(0xDEADBEEF);
  message.mutable_rows()->set_data(std::string("\0payload\xFF", 9));
  message.mutable_end()->set_rows(7);
  return message;
}

// Wire format by hand.
std::string Field(int number, int type, const std::string& rest) {
  return std::string(1, static_cast<char>(number << 3 | type)) + rest;
}
std::string Bytes(int number, const std::string& content) {
  return Field(number, 2, std::string(1, static_cast<char>(content.size())) + content);
}

TEST(FrameDecoderTest, TakesThePayloadOutAndParsesTheRest) {
  const std::string bytes = Everything().SerializeAsString();
  const auto frame = Decode(bytes);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_EQ(frame->message.header().decay(), 0.95);
  EXPECT_EQ(frame->message.rows().crc32c(), 0xDEADBEEF);
  EXPECT_EQ(frame->message.rows().data(), "");
  // Where it was, not a copy of it.
  ASSERT_EQ(frame->payload.size(), 1);
  EXPECT_GE(frame->payload[0].data(), bytes.data());
  EXPECT_LE(frame->payload[0].data() + 9, bytes.data() + bytes.size());
  ExpectLikeProtobuf(bytes);
}

TEST(FrameDecoderTest, SlicesMayBeCutAnywhere) {
  const std::string bytes = Everything().SerializeAsString();
  const std::string_view all = bytes;
  const auto whole = Decode(bytes);
  ASSERT_TRUE(whole.ok());
  for (size_t first = 0; first <= all.size(); ++first) {
    for (size_t second = first; second <= all.size(); ++second) {
      const std::string_view slices[] = {
          all.substr(0, first), {}, all.substr(first, second - first), all.substr(second)};
      const auto frame = DecodeUpdate(slices);
      ASSERT_TRUE(frame.ok()) << first << ", " << second << ": " << frame.status();
      EXPECT_EQ(Payload(*frame), Payload(*whole));
      EXPECT_TRUE(MessageDifferencer::Equals(frame->message, whole->message));
    }
  }
}

TEST(FrameDecoderTest, EveryTruncationIsJudgedAsByProtobuf) {
  const std::string bytes = Everything().SerializeAsString();
  for (size_t size = 0; size < bytes.size(); ++size) {
    SCOPED_TRACE(size);
    ExpectLikeProtobuf(bytes.substr(0, size));
  }
}

TEST(FrameDecoderTest, EveryChangedByteIsJudgedAsByProtobuf) {
  const std::string bytes = Everything().SerializeAsString();
  for (size_t at = 0; at < bytes.size(); ++at) {
    for (const int flip : {0x01, 0x02, 0x04, 0x07, 0x08, 0x40, 0x80, 0xFF}) {
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ flip);
      SCOPED_TRACE(testing::Message() << "byte " << at << " ^ " << flip);
      ExpectLikeProtobuf(changed);
    }
  }
}

TEST(FrameDecoderTest, FieldsComeInAnyOrderRepeatedAndUnknown) {
  const std::string first = Field(1, 0, "\x07") + Bytes(15, "old");
  const std::string second = Bytes(15, "new") + Field(2, 0, "\x05");
  // Submessages merge, of scalars the last one wins, what is unknown is skipped.
  ExpectLikeProtobuf(Bytes(5, Field(1, 0, "\x09")) + Bytes(4, first) + Bytes(99 - 90, "unknown") +
                     Bytes(4, second) + Bytes(5, ""));
  ExpectLikeProtobuf(Bytes(4, Bytes(15, "kept")) + Bytes(4, Field(1, 0, "\x01")));
  ExpectLikeProtobuf(Bytes(4, Bytes(15, "gone") + Bytes(15, "")));
  // A known number with another wire type is an unknown field.
  ExpectLikeProtobuf(Field(4, 0, "\x01") + Bytes(4, Field(15, 5, "abcd")));
  // Groups: the payload of another message within them is none of ours.
  ExpectLikeProtobuf(Field(4, 3, Bytes(4, Bytes(15, "x")) + Field(4, 4, "")));
  ExpectLikeProtobuf(Bytes(4, Field(6, 3, Field(6, 3, "") + Field(6, 4, "") + Field(6, 4, ""))));
  ExpectLikeProtobuf(Field(6, 3, Field(7, 4, "")));
  ExpectLikeProtobuf(Field(6, 4, ""));
}

TEST(FrameDecoderTest, NumbersMayBeLongerThanNeeded) {
  using namespace std::string_literals;
  ExpectLikeProtobuf("\xA2\x80\x80\x80\x00\x82\x80\x00\x7A\x00"s);  // rows, of two bytes: no data
  ExpectLikeProtobuf("\xA2\x80\x80\x80\x80\x00\x00"s);              // a tag of six bytes
  ExpectLikeProtobuf("\x22\x82\x80\x80\x80\x80\x00\x7A\x00"s);      // a length of six bytes
  ExpectLikeProtobuf("\x22\x82\x80\x80\x80\x08\x7A\x00"s);          // a length over 2 GiB
  ExpectLikeProtobuf("\x30\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F"s);
  ExpectLikeProtobuf("\x30\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x01"s);
}

TEST(FrameDecoderTest, RecursionEndsWhereProtobufEndsIt) {
  for (const int depth : {1, 50, 98, 99, 100, 101, 102, 100'000}) {
    std::string groups;
    for (int i = 0; i < depth; ++i) groups += Field(6, 3, "");
    for (int i = 0; i < depth; ++i) groups += Field(6, 4, "");
    SCOPED_TRACE(depth);
    ExpectLikeProtobuf(groups);
    if (groups.size() < 128) continue;
    const std::string length = {static_cast<char>(0x80 | (groups.size() & 0x7F)),
                                static_cast<char>(groups.size() >> 7)};
    if (groups.size() < 16384) ExpectLikeProtobuf(Field(4, 2, length + groups));
  }
}

TEST(FrameDecoderTest, SaysWhatIsWrongAndWhere) {
  using namespace std::string_literals;
  ExpectMalformed("\x22\x05"s + "ab",
                  "not a fisherd.v1.UpdateRequest: byte 2 of the message's 4: a field of 5 bytes, "
                  "where 2 are left");
  ExpectMalformed("\x22\x03\x7A\x02z"s, "byte 4 of the message's 5: a field of 2 bytes, where 1");
  ExpectMalformed("\x08\x80"s, "byte 2 of the message's 2: ends within a number");
  ExpectMalformed("\x07"s, "byte 1 of the message's 1: field number 0");
  ExpectMalformed("\x0F"s, "wire type 7");
  ExpectMalformed("\x0C"s, "a group ends that has not begun");
  ExpectMalformed(Bytes(2, Bytes(1, "\xFF")), "names are UTF-8");
}

TEST(FrameDecoderTest, BoundsWhatIsNotPayload) {
  v1::UpdateRequest message;
  message.mutable_rows()->set_data(std::string(3 << 20, 'x'));
  EXPECT_TRUE(Decode(message.SerializeAsString()).ok());

  message.Clear();
  message.mutable_header()->set_digest(std::string(kMaxControlBytes - 100, 'x'));
  EXPECT_TRUE(Decode(message.SerializeAsString()).ok());
  message.mutable_header()->set_digest(std::string(kMaxControlBytes, 'x'));
  ExpectMalformed(message.SerializeAsString(), "more than 262144 bytes beside the payload");

  std::string many;
  for (int i = 0; i < kMaxControlBytes; ++i) many += Field(6, 0, "\x01");
  ExpectMalformed(many, "524288 bytes beside the payload; at most 262144 are allowed");
}

}  // namespace
}  // namespace fisherd::server
