// Any bytes as a file to import: they are refused, or every tensor that the header has can be read,
// or is told to be damaged.

#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "google/protobuf/stubs/logging.h"
#include "server/store/tensor_file.h"

namespace fisherd::server {

std::string WriteInput(const uint8_t* data, size_t size) {
  static const std::string path = "/tmp/tensor_file_fuzzer." + std::to_string(getpid());
  FILE* const file = fopen(path.c_str(), "wb");
  if (file == nullptr || fwrite(data, 1, size, file) != size) abort();
  fclose(file);
  return path;
}

}  // namespace fisherd::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fisherd;
  static const google::protobuf::LogSilencer* const silence = new google::protobuf::LogSilencer;
  (void)silence;
  const std::string path = server::WriteInput(data, size);
  const auto header = server::ReadTensorFileHeader(path);
  if (header.ok()) {
    for (const auto& [name, tensor] : header->tensors) {
      if (tensor.shape.bytes() > static_cast<int64_t>(size)) abort();
      const auto matrix = core::Matrix::New(tensor.shape);
      const absl::Status status = server::ReadTensor(path, tensor.place, *matrix);
      if (!status.ok() && !absl::IsDataLoss(status)) abort();
    }
  }
  unlink(path.c_str());
  return 0;
}
