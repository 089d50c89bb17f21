#include "server/data_service.h"

#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "core/error.h"
#include "server/factor_error.h"
#include "server/status.h"
#include "server/store/disk_error.h"

namespace fisherd::server {
namespace {

constexpr size_t kChunkBytes = 1 << 20;

grpc::Status NoDataDirectory() {
  return ToGrpcStatus(
      core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kNoDataDirectory,
                      "this server keeps everything in memory: start it with --data-dir"));
}

// A file that goes when this does.
class Transfer {
 public:
  explicit Transfer(std::string path) : path_(std::move(path)) {}
  ~Transfer() {
    std::error_code error;
    std::filesystem::remove(path_, error);
  }
  Transfer(const Transfer&) = delete;
  Transfer& operator=(const Transfer&) = delete;
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

// Writes what follows the header to a file.
absl::Status Receive(grpc::ServerReader<v1::ImportFactorRequest>& reader, const std::string& path) {
  std::ofstream file(path, std::ios::binary);
  v1::ImportFactorRequest request;
  while (reader.Read(&request)) {
    if (request.part_case() != v1::ImportFactorRequest::kData) {
      return core::BadArgument("header", "a header comes once, before all data");
    }
    file.write(request.data().data(), static_cast<std::streamsize>(request.data().size()));
    if (!file) return DiskFull("cannot keep the file that is imported");
  }
  file.close();
  return file ? absl::OkStatus() : DiskFull("cannot keep the file that is imported");
}

}  // namespace

grpc::Status DataService::Snapshot(grpc::ServerContext*, const v1::SnapshotRequest* request,
                                   grpc::ServerWriter<v1::SnapshotResponse>* writer) {
  if (store_ == nullptr) return NoDataDirectory();
  v1::SnapshotResponse response;
  const absl::Status status =
      store_->Snapshot(request->prefix(), [&](const SnapshotProgress& progress) {
        response.set_factors_done(progress.factors_done);
        response.set_factors(progress.factors);
        response.set_bytes_done(progress.bytes_done);
        writer->Write(response);
      });
  if (status.ok()) writer->Write(response);
  return ToGrpcStatus(status);
}

grpc::Status DataService::ListGenerations(grpc::ServerContext*,
                                          const v1::ListGenerationsRequest* request,
                                          v1::ListGenerationsResponse* response) {
  if (store_ == nullptr) return NoDataDirectory();
  const auto generations = store_->Generations(request->factor());
  if (!generations.ok()) return ToGrpcStatus(generations.status());
  for (const store::v1::Generation& generation : *generations) {
    v1::GenerationInfo* const info = response->add_generations();
    info->set_number(generation.number());
    *info->mutable_created() = generation.created();
    *info->mutable_version() = generation.version();
    info->set_bytes(static_cast<int64_t>(generation.covariance().bytes()));
  }
  return grpc::Status::OK;
}

grpc::Status DataService::RestoreGeneration(grpc::ServerContext*,
                                            const v1::RestoreGenerationRequest* request,
                                            v1::RestoreGenerationResponse*) {
  if (store_ == nullptr) return NoDataDirectory();
  return ToGrpcStatus(
      NameFactor(store_->Restore(request->factor(), request->number()), request->factor()));
}

grpc::Status DataService::ExportFactor(grpc::ServerContext*, const v1::ExportFactorRequest* request,
                                       grpc::ServerWriter<v1::ExportFactorResponse>* writer) {
  if (store_ == nullptr) return NoDataDirectory();
  const auto path = store_->Export(request->factor());
  if (!path.ok()) return ToGrpcStatus(NameFactor(path.status(), request->factor()));
  const Transfer transfer(*path);
  std::error_code error;
  v1::ExportFactorResponse response;
  response.set_total_bytes(static_cast<int64_t>(std::filesystem::file_size(*path, error)));
  std::ifstream file(*path, std::ios::binary);
  int64_t left = response.total_bytes();
  while (left > 0) {
    std::string& data = *response.mutable_data();
    data.resize(std::min<int64_t>(left, kChunkBytes));
    if (!file.read(data.data(), static_cast<std::streamsize>(data.size()))) {
      return ToGrpcStatus(DiskFailed("cannot read what was exported"));
    }
    left -= static_cast<int64_t>(data.size());
    if (!writer->Write(response)) return grpc::Status::CANCELLED;
  }
  return grpc::Status::OK;
}

grpc::Status DataService::ImportFactor(grpc::ServerContext*,
                                       grpc::ServerReader<v1::ImportFactorRequest>* reader,
                                       v1::ImportFactorResponse* response) {
  if (store_ == nullptr) return NoDataDirectory();
  if (absl::Status status = store_->CheckWritable(); !status.ok()) return ToGrpcStatus(status);
  v1::ImportFactorRequest request;
  if (!reader->Read(&request) || request.part_case() != v1::ImportFactorRequest::kHeader) {
    return ToGrpcStatus(core::BadArgument("header", "header is absent; it comes first"));
  }
  const v1::ImportFactorHeader header = request.header();
  const Transfer transfer(store_->NewTransfer());
  if (absl::Status status = Receive(*reader, transfer.path()); !status.ok()) {
    return ToGrpcStatus(status);
  }
  const auto name = store_->Import(transfer.path(), header.factor(), header.replace());
  if (!name.ok()) return ToGrpcStatus(name.status());
  response->set_factor(*name);
  return grpc::Status::OK;
}

grpc::Status DataService::Backup(grpc::ServerContext*, const v1::BackupRequest* request,
                                 v1::BackupResponse* response) {
  if (store_ == nullptr) return NoDataDirectory();
  const auto path = store_->Backup(request->name());
  if (!path.ok()) return ToGrpcStatus(path.status());
  response->set_path(*path);
  return grpc::Status::OK;
}

}  // namespace fisherd::server
