#include "server/store/tensor_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/batch_reader.h"
#include "core/error.h"
#include "core/tensor.h"
#include "google/protobuf/struct.pb.h"
#include "google/protobuf/util/json_util.h"
#include "server/json.h"
#include "server/store/background.h"
#include "server/store/direct_file.h"
#include "server/store/disk_error.h"
#include "server/store/failpoint.h"

namespace fisherd::server {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kChecksums[] = "checksums";
constexpr int64_t kMaxHeaderBytes = 64 << 20;

int64_t ChecksumCount(int64_t bytes) { return (bytes + kChecksumBytes - 1) / kChecksumBytes; }

std::string TensorEntry(const std::string& name, const char* dtype, const std::string& shape,
                        int64_t begin, int64_t end) {
  return absl::StrCat(",", JsonString(name), ":{\"dtype\":\"", dtype, "\",\"shape\":[", shape,
                      "],\"data_offsets\":[", begin, ",", end, "]}");
}

// The header with its length before it, and where the tensors are.
std::string HeaderOf(std::span<const NamedMatrix> tensors,
                     const std::map<std::string, std::string>& metadata,
                     std::vector<store::v1::Place>& places) {
  std::string json = "{\"__metadata__\":{";
  const char* separator = "";
  for (const auto& [key, value] : metadata) {
    absl::StrAppend(&json, std::exchange(separator, ","), JsonString(key), ":", JsonString(value));
  }
  json += "}";
  int64_t offset = 0;
  int64_t checksums = 2;
  for (const auto& [name, matrix] : tensors) {
    const core::MatrixShape& shape = matrix->shape();
    json += TensorEntry(name, shape.dtype == core::DataType::kFloat64 ? "F64" : "F32",
                        absl::StrCat(shape.rows, ",", shape.cols), offset, offset + shape.bytes());
    places.emplace_back();
    places.back().set_offset(offset);
    places.back().set_bytes(shape.bytes());
    offset += shape.bytes();
    checksums += ChecksumCount(shape.bytes());
  }
  json += TensorEntry(kChecksums, "U32", absl::StrCat(checksums), offset, offset + 4 * checksums);
  json += "}";
  const size_t length = sizeof(uint64_t);
  json.resize(
      (length + json.size() + DirectFile::kBlock - 1) / DirectFile::kBlock * DirectFile::kBlock -
          length,
      ' ');
  for (store::v1::Place& place : places) place.set_offset(place.offset() + length + json.size());
  const uint64_t size = json.size();
  return std::string(reinterpret_cast<const char*>(&size), length) + json;
}

uint32_t Crc(std::span<const std::byte> bytes) { return core::Crc32c(0, bytes); }

// ---- Reading

class ReadableFile {
 public:
  explicit ReadableFile(const std::string& path) : file_(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    if (file_ >= 0) posix_fadvise(file_, 0, 0, POSIX_FADV_SEQUENTIAL);
  }
  ~ReadableFile() {
    if (file_ < 0) return;
    posix_fadvise(file_, 0, 0, POSIX_FADV_DONTNEED);
    close(file_);
  }
  ReadableFile(const ReadableFile&) = delete;
  ReadableFile& operator=(const ReadableFile&) = delete;

  bool is_open() const { return file_ >= 0; }
  int64_t size() const {
    struct stat info;
    return fstat(file_, &info) == 0 ? info.st_size : 0;
  }
  // False if it ends before, or cannot be read.
  bool Read(int64_t offset, std::span<std::byte> bytes) const {
    while (!bytes.empty()) {
      const ssize_t got = pread(file_, bytes.data(), bytes.size(), offset);
      if (got < 0 && errno == EINTR) continue;
      if (got <= 0) return false;
      bytes = bytes.subspan(got);
      offset += got;
    }
    return true;
  }

 private:
  const int file_;
};

absl::Status NotOurs(const std::string& why) {
  return core::MakeError(absl::StatusCode::kInvalidArgument, core::reason::kBadArgument,
                         absl::StrCat("not a file of fisherd: ", why));
}

// A number of a header: whole, from 0 to what a file can have.
std::optional<int64_t> WholeNumber(const google::protobuf::Value& value) {
  const double number = value.number_value();
  if (value.kind_case() != google::protobuf::Value::kNumberValue || !(number >= 0) ||
      number > (int64_t{1} << 50) || number != std::floor(number)) {
    return std::nullopt;
  }
  return static_cast<int64_t>(number);
}

std::optional<std::vector<int64_t>> WholeNumbers(const google::protobuf::Struct& entry,
                                                 const char* field) {
  const auto found = entry.fields().find(field);
  if (found == entry.fields().end()) return std::nullopt;
  std::vector<int64_t> numbers;
  for (const auto& value : found->second.list_value().values()) {
    const auto number = WholeNumber(value);
    if (!number.has_value()) return std::nullopt;
    numbers.push_back(*number);
  }
  return numbers;
}

struct Entry {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  int64_t begin = 0;
  int64_t end = 0;
};

std::optional<Entry> ParseEntry(const std::string& name, const google::protobuf::Value& value) {
  const auto& fields = value.struct_value();
  const auto dtype = fields.fields().find("dtype");
  const auto shape = WholeNumbers(fields, "shape");
  const auto offsets = WholeNumbers(fields, "data_offsets");
  if (dtype == fields.fields().end() || !shape.has_value() || !offsets.has_value() ||
      offsets->size() != 2) {
    return std::nullopt;
  }
  return Entry{name, dtype->second.string_value(), *shape, (*offsets)[0], (*offsets)[1]};
}

std::optional<core::MatrixShape> ShapeOf(const Entry& entry) {
  core::MatrixShape shape;
  if (entry.dtype == "F64") {
    shape.dtype = core::DataType::kFloat64;
  } else if (entry.dtype != "F32") {
    return std::nullopt;
  }
  if (entry.shape.size() != 2 || entry.shape[0] < 1 || entry.shape[1] < 1) return std::nullopt;
  shape.rows = entry.shape[0];
  shape.cols = entry.shape[1];
  if (shape.rows > (int64_t{1} << 50) / 8 / shape.cols) return std::nullopt;
  return shape.bytes() == entry.end - entry.begin ? std::optional(shape) : std::nullopt;
}

absl::StatusOr<std::string> ReadHeader(const ReadableFile& file) {
  uint64_t length = 0;
  if (!file.Read(0, std::as_writable_bytes(std::span(&length, 1)))) return NotOurs("it is empty");
  if (length > kMaxHeaderBytes || static_cast<int64_t>(length) > file.size()) {
    return NotOurs(absl::StrCat("its header would have ", length, " bytes"));
  }
  std::string header(sizeof(length) + length, '\0');
  if (!file.Read(0, std::as_writable_bytes(std::span(header)))) return NotOurs("it is cut short");
  return header;
}

// The entries of tensors in the order of their bytes, which follow each other to the end of the
// file.
absl::StatusOr<std::vector<Entry>> ParseEntries(const google::protobuf::Struct& header,
                                                int64_t data_bytes) {
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.fields()) {
    if (name == "__metadata__") continue;
    auto entry = ParseEntry(name, value);
    if (!entry.has_value())
      return NotOurs(absl::StrCat("its header is wrong at ", JsonString(name)));
    entries.push_back(*std::move(entry));
  }
  std::sort(entries.begin(), entries.end(),
            [](const Entry& a, const Entry& b) { return a.begin < b.begin; });
  int64_t end = 0;
  for (const Entry& entry : entries) {
    if (entry.begin != end || entry.end < entry.begin) return NotOurs("its tensors have gaps");
    end = entry.end;
  }
  if (end != data_bytes) return NotOurs("it is not as long as its header says");
  return entries;
}

}  // namespace

TensorFileWriter::TensorFileWriter(std::vector<NamedMatrix> tensors)
    : tensors_(std::move(tensors)) {
  for (const NamedMatrix& tensor : tensors_) {
    std::span<const std::byte> rest = tensor.matrix->bytes();
    while (!rest.empty()) {
      blocks_.push_back(rest.first(std::min<size_t>(rest.size(), kChecksumBytes)));
      rest = rest.subspan(blocks_.back().size());
    }
  }
  checksums_.resize(blocks_.size());
  helper_ = std::async(std::launch::async, [this] {
    SetBackgroundPriority();
    ComputeChecksums();
  });
}

void TensorFileWriter::ComputeChecksums() {
  for (size_t i = next_block_++; i < blocks_.size(); i = next_block_++) {
    checksums_[i] = Crc(blocks_[i]);
  }
}

// Under a name for the time being, then under its own. The sync after that is the one that both
// need.
absl::Status TensorFileWriter::WriteAll(const std::string& path, const std::string& header,
                                        std::vector<store::v1::Place>& places) {
  const std::string temporary = path + ".tmp";
  auto file = DirectFile::Create(temporary);
  if (!file.ok()) return file.status();
  VisitFailpoint("file.created");
  if (auto s = (*file)->Append(std::as_bytes(std::span(header))); !s.ok()) return s;
  VisitFailpoint("file.header");
  for (const NamedMatrix& tensor : tensors_) {
    if (auto s = (*file)->AppendKept(tensor.matrix->bytes()); !s.ok()) return s;
    VisitFailpoint("file.data");
  }
  ComputeChecksums();
  helper_.get();
  auto checksum = checksums_.begin();
  for (store::v1::Place& place : places) {
    const auto end = checksum + ChecksumCount(static_cast<int64_t>(place.bytes()));
    place.mutable_crc32c()->Add(checksum, end);
    checksum = end;
  }
  std::vector<uint32_t> all = {Crc(std::as_bytes(std::span(header)))};
  all.insert(all.end(), checksums_.begin(), checksums_.end());
  all.push_back(Crc(std::as_bytes(std::span(all))));
  if (auto s = (*file)->Append(std::as_bytes(std::span(all))); !s.ok()) return s;
  if (auto s = (*file)->Finish(); !s.ok()) return s;
  VisitFailpoint("file.written");
  if (std::rename(temporary.c_str(), path.c_str()) != 0) {
    return ErrnoStatus(absl::StrCat("cannot rename ", temporary));
  }
  VisitFailpoint("file.renamed");
  return (*file)->Sync();
}

absl::StatusOr<std::vector<store::v1::Place>> TensorFileWriter::Write(
    const std::string& directory, const std::string& name,
    const std::map<std::string, std::string>& metadata) {
  std::vector<store::v1::Place> places;
  const std::string header = HeaderOf(tensors_, metadata, places);
  const std::string path = absl::StrCat(directory, "/", name);
  unlink((path + ".tmp").c_str());
  if (absl::Status status = WriteAll(path, header, places); !status.ok()) {
    unlink((path + ".tmp").c_str());
    unlink(path.c_str());
    return status;
  }
  VisitFailpoint("file.synced");
  if (absl::Status synced = SyncDirectory(directory); !synced.ok()) return synced;
  VisitFailpoint("file.directory_synced");
  return places;
}

absl::Status ReadTensor(const std::string& path, const store::v1::Place& place,
                        core::Matrix& matrix) {
  const ReadableFile file(path);
  if (!file.is_open()) return Damaged(absl::StrCat("there is no ", path));
  const int64_t bytes = matrix.shape().bytes();
  if (static_cast<int64_t>(place.bytes()) != bytes || place.crc32c_size() != ChecksumCount(bytes)) {
    return Damaged(absl::StrCat(path, " has a tensor of another size"));
  }
  std::byte* const data = matrix.bytes().data();
  for (int i = 0; i < place.crc32c_size(); ++i) {
    const int64_t first = i * kChecksumBytes;
    const std::span block(data + first, std::min(bytes - first, kChecksumBytes));
    const int64_t offset = static_cast<int64_t>(place.offset()) + first;
    if (!file.Read(offset, block)) {
      return Damaged(absl::StrFormat("%s cannot be read at byte %d", path, offset));
    }
    if (Crc(block) != place.crc32c(i)) {
      return Damaged(
          absl::StrFormat("%s is not as it was written: the checksum of its bytes %d to %d "
                          "is %08x, and was %08x",
                          path, offset, offset + block.size() - 1, Crc(block), place.crc32c(i)));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<TensorFileHeader> ReadTensorFileHeader(const std::string& path) {
  const ReadableFile file(path);
  if (!file.is_open()) return NotOurs(absl::StrCat("cannot open ", path));
  const auto header = ReadHeader(file);
  if (!header.ok()) return header.status();
  google::protobuf::Struct json;
  if (!google::protobuf::util::JsonStringToMessage(header->substr(sizeof(uint64_t)), &json).ok()) {
    return NotOurs("its header is not JSON");
  }
  const int64_t data = static_cast<int64_t>(header->size());
  auto entries = ParseEntries(json, file.size() - data);
  if (!entries.ok()) return entries.status();
  if (entries->empty() || entries->back().name != kChecksums || entries->back().dtype != "U32") {
    return NotOurs("it has no checksums");
  }
  const Entry last = std::move(entries->back());
  entries->pop_back();
  std::vector<uint32_t> checksums((last.end - last.begin) / 4);
  if (!file.Read(data + last.begin, std::as_writable_bytes(std::span(checksums)))) {
    return NotOurs("it is cut short");
  }
  int64_t expected = 2;
  TensorFileHeader result;
  for (const Entry& entry : *entries) {
    const auto shape = ShapeOf(entry);
    if (!shape.has_value())
      return NotOurs(absl::StrCat(JsonString(entry.name), " is not a matrix"));
    store::v1::Place place;
    place.set_offset(data + entry.begin);
    place.set_bytes(shape->bytes());
    for (int64_t i = 0; i < ChecksumCount(shape->bytes()); ++i, ++expected) {
      if (expected > std::ssize(checksums)) return NotOurs("it has too few checksums");
      place.add_crc32c(checksums[expected - 1]);
    }
    result.tensors[entry.name] = {*shape, std::move(place)};
  }
  const std::span sums(checksums);
  if (std::ssize(checksums) != expected || 4 * expected != last.end - last.begin ||
      checksums[0] != Crc(std::as_bytes(std::span(*header))) ||
      checksums.back() != Crc(std::as_bytes(sums.first(sums.size() - 1)))) {
    return NotOurs("its header or its checksums are not as they were written");
  }
  const auto metadata = json.fields().find("__metadata__");
  if (metadata != json.fields().end()) {
    for (const auto& [key, value] : metadata->second.struct_value().fields()) {
      result.metadata[key] = value.string_value();
    }
  }
  return result;
}

}  // namespace fisherd::server
