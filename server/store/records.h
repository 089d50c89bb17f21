// Between core's types and what a data directory holds.

#ifndef FISHERD_SERVER_STORE_RECORDS_H_
#define FISHERD_SERVER_STORE_RECORDS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "core/factor_store.h"
#include "fisherd/store/v1/records.pb.h"

namespace fisherd::server {

// ---- Keys (records.proto)

inline constexpr char kMetaKey[] = "m";
std::string DampingKey(std::string_view name);
std::string FactorKey(std::string_view name);
std::string GenerationKey(std::string_view name, uint64_t number);
std::string OutcomeKey(std::string_view name, uint64_t incarnation, int ledger, int64_t step);
std::string LogKey(std::string_view name, uint64_t incarnation, int64_t ended);

// All keys of a factor of one kind ('g', 'o', or 'l' for the log) are from the one to before the
// other.
struct KeyRange {
  std::string first;
  std::string last;
};
KeyRange KeysOf(char kind, std::string_view name);

// The key's name, and what follows the 0 after it.
struct ParsedKey {
  std::string_view name;
  std::string_view rest;
};
ParsedKey ParseKey(std::string_view key_without_kind);
uint64_t BigEndian(std::string_view bytes);  // of 4 or 8

// ---- Values. What comes back from a disk is DATA_LOSS (STATE_DAMAGED) if it cannot have been
// written.

store::v1::Factor ToRecord(const core::FactorImage& life);
store::v1::Run ToRecord(const core::StepRun& run);
store::v1::LoggedStep ToRecord(const core::StepRecord& step);
// But for its number, file and places.
store::v1::Generation ToGeneration(const core::FactorImage& image);

core::StepRun FromRecord(const store::v1::Run& run);
absl::StatusOr<core::FactorSpec> FromRecord(const fisherd::v1::FactorSpec& spec);
absl::StatusOr<core::OperatorSpec> FromRecord(const fisherd::v1::Operator& op);
// As it was created: nothing of its state.
absl::StatusOr<core::FactorImage> ToImage(std::string_view name, const store::v1::Factor& factor);
// As it was saved, but for state and results.
absl::StatusOr<core::FactorImage> ToImage(std::string_view name,
                                          const store::v1::Generation& generation);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_STORE_RECORDS_H_
