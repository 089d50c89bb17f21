// fisherd.v1.DataService: what each call promises stands in data_service.proto.

#ifndef FISHERD_SERVER_DATA_SERVICE_H_
#define FISHERD_SERVER_DATA_SERVICE_H_

#include <functional>
#include <string_view>

#include "fisherd/v1/data_service.grpc.pb.h"
#include "server/auth/guard.h"
#include "server/store/store.h"

namespace fisherd::server {

// Thread-safe. These calls wait for disks: they run on threads of their own, which gRPC keeps for
// methods of this form.
class DataService final : public v1::DataService::Service {
 public:
  // They must outlive the gRPC server; without a data directory the store is null.
  DataService(Guard* guard, Store* store) : guard_(*guard), store_(store) {}

  grpc::Status Snapshot(grpc::ServerContext* context, const v1::SnapshotRequest* request,
                        grpc::ServerWriter<v1::SnapshotResponse>* writer) override;
  grpc::Status ListGenerations(grpc::ServerContext* context,
                               const v1::ListGenerationsRequest* request,
                               v1::ListGenerationsResponse* response) override;
  grpc::Status RestoreGeneration(grpc::ServerContext* context,
                                 const v1::RestoreGenerationRequest* request,
                                 v1::RestoreGenerationResponse* response) override;
  grpc::Status ExportFactor(grpc::ServerContext* context, const v1::ExportFactorRequest* request,
                            grpc::ServerWriter<v1::ExportFactorResponse>* writer) override;
  grpc::Status ImportFactor(grpc::ServerContext* context,
                            grpc::ServerReader<v1::ImportFactorRequest>* reader,
                            v1::ImportFactorResponse* response) override;
  grpc::Status Backup(grpc::ServerContext* context, const v1::BackupRequest* request,
                      v1::BackupResponse* response) override;

 private:
  grpc::Status Administer(const grpc::ServerContext& context, std::string_view method,
                          std::string_view target, const std::function<absl::Status()>& call);

  Guard& guard_;
  Store* const store_;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_DATA_SERVICE_H_
