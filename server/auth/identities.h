// Who may do what: a file that an operator writes (docs/security.md).
//
//   identities:
//     - name: trainers-a
//       token_sha256: 9f86d081884c7d65…   # of a bearer token, in hex; one or a list
//       certificates: [trainer-a.example, spiffe://example/trainer/a]   # names in certificates
//       read: [""]                        # prefixes of names; the empty one is of all
//       update: [jobs/a/]
//       admin: []
//       quota: {bytes: 4GiB, factors: 100, streams: 8}

#ifndef FISHERD_SERVER_AUTH_IDENTITIES_H_
#define FISHERD_SERVER_AUTH_IDENTITIES_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"

namespace fisherd::server {

// Each has those before it in it.
enum class Permission { kRead, kUpdate, kAdmin };
// "read", "update", "admin".
const char* NameOf(Permission permission);

// Of the factors that an identity may update, and of its streams and calls that send batches.
struct Quota {
  static constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  int64_t bytes = kNone;
  int64_t factors = kNone;
  int64_t streams = kNone;
};

using Sha256 = std::array<unsigned char, 32>;

struct Identity {
  std::string name;
  std::vector<Sha256> tokens;  // hashes
  std::vector<std::string> certificates;
  std::array<std::vector<std::string>, 3> prefixes;  // by permission
  Quota quota;

  bool May(Permission permission, std::string_view name) const;
  // Of the names that it may update: none is a prefix of another.
  std::vector<std::string> UpdatePrefixes() const;
};

// Immutable.
class Identities {
 public:
  // INVALID_ARGUMENT with the line and what was expected; `path` stands in the message.
  static absl::StatusOr<Identities> Parse(const std::string& yaml, const std::string& path);
  static absl::StatusOr<Identities> Load(const std::string& path);

  // Null if it is nobody's. How long it takes says nothing of what is known.
  const Identity* ByToken(std::string_view token) const;
  // The first that has one of the names.
  const Identity* ByCertificate(const std::vector<std::string>& names) const;
  const Identity* ByName(std::string_view name) const;
  size_t size() const { return all_.size(); }

 private:
  std::vector<Identity> all_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_AUTH_IDENTITIES_H_
