#include "server/auth/identities.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/options.h"

namespace fisherd::server {
namespace {

constexpr Permission kPermissions[] = {Permission::kRead, Permission::kUpdate, Permission::kAdmin};

// Of one file, for messages.
class Reader {
 public:
  explicit Reader(std::string path) : path_(std::move(path)) {}

  template <typename... Parts>
  absl::Status Bad(const YAML::Node& node, const Parts&... what) const {
    return absl::InvalidArgumentError(
        absl::StrCat(path_, ":", node.Mark().line + 1, ": ", what...));
  }

  absl::StatusOr<Identity> ReadIdentity(const YAML::Node& node) const {
    if (!node.IsMap()) return Bad(node, "expected an identity: name, then what it may");
    Identity identity;
    for (const auto& entry : node) {
      const absl::Status status = ReadField(entry.first, entry.second, identity);
      if (!status.ok()) return status;
    }
    if (identity.name.empty()) return Bad(node, "an identity has no name");
    if (identity.tokens.empty() && identity.certificates.empty()) {
      return Bad(node, identity.name,
                 " has neither token_sha256 nor certificates: nobody can be it");
    }
    return identity;
  }

 private:
  absl::Status ReadField(const YAML::Node& key, const YAML::Node& value, Identity& identity) const {
    const std::string& name = key.Scalar();
    if (name == "name") {
      identity.name = value.IsScalar() ? value.Scalar() : "";
      return identity.name.empty() ? Bad(value, "name: expected a word") : absl::OkStatus();
    }
    if (name == "quota") return ReadQuota(value, identity.quota);
    std::vector<std::string> words;
    if (name == "token_sha256") {
      if (absl::Status status = ReadWords(value, name, words); !status.ok()) return status;
      for (const std::string& word : words) {
        if (word.size() != 2 * sizeof(Sha256) ||
            !std::all_of(word.begin(), word.end(), absl::ascii_isxdigit)) {
          return Bad(value, "token_sha256: expected 64 hexadecimal digits");  // not which it has
        }
        const std::string bytes = absl::HexStringToBytes(word);
        std::copy(bytes.begin(), bytes.end(), identity.tokens.emplace_back().begin());
      }
      return absl::OkStatus();
    }
    if (name == "certificates") return ReadWords(value, name, identity.certificates);
    for (const Permission permission : kPermissions) {
      if (name != NameOf(permission)) continue;
      return ReadWords(value, name, identity.prefixes[static_cast<size_t>(permission)]);
    }
    return Bad(key, "unknown key ", name,
               "; expected name, token_sha256, certificates, read, update, admin or quota");
  }

  absl::Status ReadWords(const YAML::Node& node, const std::string& key,
                         std::vector<std::string>& words) const {
    if (node.IsScalar()) {
      words.push_back(node.Scalar());
      return absl::OkStatus();
    }
    if (!node.IsSequence()) return Bad(node, key, ": expected a list");
    for (const YAML::Node& word : node) {
      if (!word.IsScalar()) return Bad(word, key, ": expected words");
      words.push_back(word.Scalar());
    }
    return absl::OkStatus();
  }

  absl::Status ReadQuota(const YAML::Node& node, Quota& quota) const {
    if (!node.IsMap()) return Bad(node, "quota: expected bytes, factors or streams");
    for (const auto& entry : node) {
      const std::string& key = entry.first.Scalar();
      const std::string value = entry.second.IsScalar() ? entry.second.Scalar() : "";
      if (key == "bytes") {
        const auto bytes = ParseBytes(value);
        if (!bytes.ok()) return Bad(entry.second, "bytes: ", bytes.status().message());
        quota.bytes = *bytes;
      } else if (key == "factors" || key == "streams") {
        int64_t& field = key == "factors" ? quota.factors : quota.streams;
        if (!absl::SimpleAtoi(value, &field) || field < 0) {
          return Bad(entry.second, key, ": expected a whole number from 0 on");
        }
      } else {
        return Bad(entry.first, "unknown key ", key, "; expected bytes, factors or streams");
      }
    }
    return absl::OkStatus();
  }

  const std::string path_;
};

Sha256 HashOf(std::string_view token) {
  Sha256 hash;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), hash.data());
  return hash;
}

}  // namespace

const char* NameOf(Permission permission) {
  constexpr const char* kNames[] = {"read", "update", "admin"};
  return kNames[static_cast<size_t>(permission)];
}

bool Identity::May(Permission permission, std::string_view name) const {
  for (const Permission own : kPermissions) {
    if (own < permission) continue;
    for (const std::string& prefix : prefixes[static_cast<size_t>(own)]) {
      if (name.starts_with(prefix)) return true;
    }
  }
  return false;
}

std::vector<std::string> Identity::UpdatePrefixes() const {
  std::set<std::string> all;
  for (const Permission permission : {Permission::kUpdate, Permission::kAdmin}) {
    const auto& own = prefixes[static_cast<size_t>(permission)];
    all.insert(own.begin(), own.end());
  }
  std::vector<std::string> shortest;
  for (const std::string& prefix : all) {  // a prefix comes before what begins with it
    if (shortest.empty() || !prefix.starts_with(shortest.back())) shortest.push_back(prefix);
  }
  return shortest;
}

absl::StatusOr<Identities> Identities::Parse(const std::string& yaml, const std::string& path) {
  const Reader reader(path);
  Identities identities;
  try {
    const YAML::Node file = YAML::Load(yaml);
    const YAML::Node list = file.IsMap() ? file["identities"] : YAML::Node();
    if (!list.IsDefined() || !list.IsSequence() || file.size() != 1) {
      return reader.Bad(file, "expected one key, identities, and a list");
    }
    for (const YAML::Node& node : list) {
      auto identity = reader.ReadIdentity(node);
      if (!identity.ok()) return identity.status();
      if (identities.ByName(identity->name) != nullptr) {
        return reader.Bad(node, "there are two identities named ", identity->name);
      }
      identities.all_.push_back(*std::move(identity));
    }
  } catch (const YAML::Exception& e) {
    return absl::InvalidArgumentError(absl::StrCat(path, ":", e.mark.line + 1, ": ", e.msg));
  }
  return identities;
}

absl::StatusOr<Identities> Identities::Load(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::InvalidArgumentError(absl::StrCat("cannot read ", path));
  return Parse(text.str(), path);
}

const Identity* Identities::ByToken(std::string_view token) const {
  const Sha256 hash = HashOf(token);
  const Identity* found = nullptr;
  for (const Identity& identity : all_) {
    for (const Sha256& known : identity.tokens) {
      if (CRYPTO_memcmp(known.data(), hash.data(), hash.size()) == 0) found = &identity;
    }
  }
  return found;
}

const Identity* Identities::ByCertificate(const std::vector<std::string>& names) const {
  for (const Identity& identity : all_) {
    for (const std::string& own : identity.certificates) {
      if (std::find(names.begin(), names.end(), own) != names.end()) return &identity;
    }
  }
  return nullptr;
}

const Identity* Identities::ByName(std::string_view name) const {
  for (const Identity& identity : all_) {
    if (identity.name == name) return &identity;
  }
  return nullptr;
}

}  // namespace fisherd::server
