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

absl::Status NoDataDirectory() {
  return core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kNoDataDirectory,
                         "this server keeps everything in memory: start it with --data-dir");
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

grpc::Status DataService::Snapshot(grpc::ServerContext* context, const v1::SnapshotRequest* request,
                                   grpc::ServerWriter<v1::SnapshotResponse>* writer) {
  return Administer(*context, "Snapshot", request->prefix(), [&] {
    v1::SnapshotResponse response;
    absl::Status status =
        store_->Snapshot(request->prefix(), [&](const SnapshotProgress& progress) {
          response.set_factors_done(progress.factors_done);
          response.set_factors(progress.factors);
          response.set_bytes_done(progress.bytes_done);
          writer->Write(response);
        });
    if (status.ok()) writer->Write(response);
    return status;
  });
}

grpc::Status DataService::ListGenerations(grpc::ServerContext* context,
                                          const v1::ListGenerationsRequest* request,
                                          v1::ListGenerationsResponse* response) {
  return Administer(*context, "ListGenerations", request->factor(), [&] {
    const auto generations = store_->Generations(request->factor());
    if (!generations.ok()) return generations.status();
    for (const store::v1::Generation& generation : *generations) {
      v1::GenerationInfo* const info = response->add_generations();
      info->set_number(generation.number());
      *info->mutable_created() = generation.created();
      *info->mutable_version() = generation.version();
      info->set_bytes(static_cast<int64_t>(generation.covariance().bytes()));
    }
    return absl::OkStatus();
  });
}

grpc::Status DataService::RestoreGeneration(grpc::ServerContext* context,
                                            const v1::RestoreGenerationRequest* request,
                                            v1::RestoreGenerationResponse*) {
  return Administer(*context, "RestoreGeneration", request->factor(), [&] {
    return NameFactor(store_->Restore(request->factor(), request->number()), request->factor());
  });
}

grpc::Status DataService::ExportFactor(grpc::ServerContext* context,
                                       const v1::ExportFactorRequest* request,
                                       grpc::ServerWriter<v1::ExportFactorResponse>* writer) {
  return Administer(*context, "ExportFactor", request->factor(), [&]() -> absl::Status {
    const auto path = store_->Export(request->factor());
    if (!path.ok()) return NameFactor(path.status(), request->factor());
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
        return DiskFailed("cannot read what was exported");
      }
      left -= static_cast<int64_t>(data.size());
      if (!writer->Write(response)) return absl::CancelledError("the caller has gone");
    }
    return absl::OkStatus();
  });
}

grpc::Status DataService::ImportFactor(grpc::ServerContext* context,
                                       grpc::ServerReader<v1::ImportFactorRequest>* reader,
                                       v1::ImportFactorResponse* response) {
  if (const auto caller = guard_.Enter(*context); !caller.ok()) {
    return ToGrpcStatus(caller.status());
  }
  v1::ImportFactorRequest request;
  if (!reader->Read(&request) || request.part_case() != v1::ImportFactorRequest::kHeader) {
    return ToGrpcStatus(core::BadArgument("header", "header is absent; it comes first"));
  }
  const v1::ImportFactorHeader header = request.header();
  // Without a name it is the file's, which may be any.
  return Administer(*context, "ImportFactor", header.factor(), [&]() -> absl::Status {
    if (absl::Status status = store_->CheckWritable(); !status.ok()) return status;
    const Transfer transfer(store_->NewTransfer());
    if (absl::Status status = Receive(*reader, transfer.path()); !status.ok()) return status;
    const auto name = store_->Import(transfer.path(), header.factor(), header.replace());
    if (!name.ok()) return name.status();
    response->set_factor(*name);
    return absl::OkStatus();
  });
}

grpc::Status DataService::Backup(grpc::ServerContext* context, const v1::BackupRequest* request,
                                 v1::BackupResponse* response) {
  return Administer(*context, "Backup", "", [&]() -> absl::Status {
    const auto path = store_->Backup(request->name());
    if (!path.ok()) return path.status();
    response->set_path(*path);
    return absl::OkStatus();
  });
}

grpc::Status DataService::Administer(const grpc::ServerContext& context, std::string_view method,
                                     std::string_view target,
                                     const std::function<absl::Status()>& call) {
  return ToGrpcStatus(guard_.Administer(
      context, method, target, [&] { return store_ == nullptr ? NoDataDirectory() : call(); }));
}

}  // namespace fisherd::server
