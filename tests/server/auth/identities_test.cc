#include "server/auth/identities.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace fisherd::server {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

Identities ParseGood(const std::string& yaml) {
  auto identities = Identities::Parse(yaml, "file.yaml");
  EXPECT_TRUE(identities.ok()) << identities.status();
  return identities.ok() ? *std::move(identities) : Identities();
}

// Of SHA-256 of "abc" (FIPS 180-4, B.1).
constexpr char kAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

const std::string kFile = std::string(R"(
identities:
  - name: ops
    token_sha256: )") + kAbc +
                          R"(
    admin: [""]
  - name: trainer
    certificates: [trainer.example, "spiffe://example/t"]
    read: [shared/]
    update: [jobs/a/, jobs/a/b/, other]
    quota: {bytes: 4GiB, factors: 100, streams: 8}
)";

TEST(IdentitiesTest, ReadsWhatIsWritten) {
  const Identities identities = ParseGood(kFile);
  ASSERT_EQ(identities.size(), 2);
  const Identity* trainer = identities.ByName("trainer");
  ASSERT_NE(trainer, nullptr);
  EXPECT_EQ(trainer->quota.bytes, int64_t{4} << 30);
  EXPECT_EQ(trainer->quota.factors, 100);
  EXPECT_EQ(trainer->quota.streams, 8);
  EXPECT_EQ(identities.ByName("ops")->quota.bytes, Quota::kNone);
  EXPECT_THAT(trainer->UpdatePrefixes(), ElementsAre("jobs/a/", "other"));
}

TEST(IdentitiesTest, ATokenIsKnownByItsHash) {
  const Identities identities = ParseGood(kFile);
  ASSERT_NE(identities.ByToken("abc"), nullptr);
  EXPECT_EQ(identities.ByToken("abc")->name, "ops");
  EXPECT_EQ(identities.ByToken("abd"), nullptr);
  EXPECT_EQ(identities.ByToken(""), nullptr);
  EXPECT_EQ(identities.ByToken(kAbc), nullptr);  // the hash is not the token
}

TEST(IdentitiesTest, ACertificateIsKnownByAnyOfItsNames) {
  const Identities identities = ParseGood(kFile);
  EXPECT_EQ(identities.ByCertificate({"x", "spiffe://example/t"})->name, "trainer");
  EXPECT_EQ(identities.ByCertificate({"trainer.example.org"}), nullptr);
  EXPECT_EQ(identities.ByCertificate({}), nullptr);
}

TEST(IdentitiesTest, PermissionsHaveThoseBelow) {
  const Identities identities = ParseGood(kFile);
  const Identity& ops = *identities.ByName("ops");
  const Identity& trainer = *identities.ByName("trainer");
  EXPECT_TRUE(ops.May(Permission::kRead, "anything"));
  EXPECT_TRUE(ops.May(Permission::kAdmin, ""));
  EXPECT_TRUE(trainer.May(Permission::kRead, "shared/x"));
  EXPECT_FALSE(trainer.May(Permission::kUpdate, "shared/x"));
  EXPECT_TRUE(trainer.May(Permission::kRead, "jobs/a/x"));
  EXPECT_TRUE(trainer.May(Permission::kUpdate, "jobs/a/x"));
  EXPECT_FALSE(trainer.May(Permission::kAdmin, "jobs/a/x"));
  EXPECT_FALSE(trainer.May(Permission::kRead, "jobs/a"));
  EXPECT_FALSE(trainer.May(Permission::kRead, ""));  // of all
  EXPECT_FALSE(trainer.May(Permission::kRead, "Shared/x"));
}

TEST(IdentitiesTest, WhatIsWrongIsSaidWhereAndNoHashIsRepeated) {
  const std::string head = "identities:\n";
  const std::pair<std::string, const char*> files[] = {
      {"", "expected one key, identities, and a list"},
      {"identities: 3\n", "expected one key, identities, and a list"},
      {"identities: []\nmore: 1\n", "expected one key, identities, and a list"},
      {head + "  - read: []\n", "file.yaml:2: an identity has no name"},
      {head + "  - name: a\n", "a has neither token_sha256 nor certificates"},
      {head + "  - name: a\n    token_sha256: deadbeef\n",
       "file.yaml:3: token_sha256: expected 64"},
      {head + "  - name: a\n    tokens: x\n", "file.yaml:3: unknown key tokens"},
      {head + "  - name: a\n    certificates: {x: y}\n", "certificates: expected a list"},
      {head + "  - name: a\n    certificates: x\n    quota: {bytes: 4GB}\n",
       "bytes: expected a positive"},
      {head + "  - name: a\n    certificates: x\n    quota: {factors: -1}\n",
       "factors: expected a whole"},
      {head + "  - name: a\n    certificates: x\n    quota: {cpu: 1}\n", "unknown key cpu"},
      {head + "  - {name: a, certificates: x}\n  - {name: a, certificates: y}\n",
       "there are two identities named a"},
      {head + "  - [\n", "file.yaml:"},
  };
  for (const auto& [text, message] : files) {
    const auto identities = Identities::Parse(text, "file.yaml");
    EXPECT_EQ(identities.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(identities.status().message()), HasSubstr(message)) << text;
    EXPECT_THAT(std::string(identities.status().message()), Not(HasSubstr("deadbeef")));
  }
  EXPECT_FALSE(Identities::Load("/no/such/file").ok());
}

}  // namespace
}  // namespace fisherd::server
