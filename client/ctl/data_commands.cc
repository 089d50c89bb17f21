#include "client/ctl/data_commands.h"

#include <grpcpp/grpcpp.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "client/cpp/errors.h"
#include "client/ctl/format.h"
#include "client/ctl/progress_bar.h"
#include "client/ctl/render.h"
#include "fisherd/v1/data_service.grpc.pb.h"

namespace fisherd::ctl {
namespace {

namespace fs = std::filesystem;

constexpr size_t kChunkBytes = 1 << 20;
constexpr char kSuffix[] = ".safetensors";

absl::Status FileError(const std::string& what, const fs::path& path) {
  return absl::UnavailableError(absl::StrCat("cannot ", what, " ", path.string()));
}

class DataCommands {
 public:
  DataCommands(const std::shared_ptr<grpc::Channel>& channel, Client& client,
               const CommandLine& line, std::ostream& out, std::ostream& err, bool err_is_terminal)
      : stub_(v1::DataService::NewStub(channel)),
        client_(client),
        line_(line),
        out_(out),
        err_(err),
        err_is_terminal_(err_is_terminal) {}

  absl::Status Run() {
    if (line_.command == "snapshot") return Snapshot();
    if (line_.command == "generations") return Generations();
    if (line_.command == "restore") return Restore();
    if (line_.command == "export") return Export();
    if (line_.command == "import") return Import();
    return Backup();
  }

 private:
  bool json() const { return line_.has("json"); }
  const std::string& argument(size_t i) const { return line_.arguments[i]; }

  absl::Status Snapshot() {
    grpc::ClientContext context;
    v1::SnapshotRequest request;
    if (!line_.arguments.empty()) request.set_prefix(argument(0));
    const auto stream = stub_->Snapshot(&context, request);
    v1::SnapshotResponse response;
    {
      ProgressBar bar(err_, err_is_terminal_, absl::Now, CountProgress);
      while (stream->Read(&response)) bar.Update(response.factors_done(), response.factors());
    }
    if (absl::Status status = FromGrpc(stream->Finish()); !status.ok()) return status;
    if (json()) {
      out_ << Json(response);
    } else {
      out_ << "saved " << response.factors_done() << " factors, " << Bytes(response.bytes_done())
           << "\n";
    }
    return absl::OkStatus();
  }

  absl::Status Generations() {
    grpc::ClientContext context;
    v1::ListGenerationsRequest request;
    request.set_factor(argument(0));
    v1::ListGenerationsResponse response;
    absl::Status status = FromGrpc(stub_->ListGenerations(&context, request, &response));
    if (!status.ok()) return status;
    if (json()) {
      out_ << Json(response);
      return status;
    }
    std::vector<std::vector<std::string>> rows = {{"GENERATION", "STEP", "SAVED", "BYTES"}};
    for (const v1::GenerationInfo& generation : response.generations()) {
      const absl::Time created = absl::FromUnixSeconds(generation.created().seconds());
      rows.push_back({absl::StrCat(generation.number()), WithThousands(generation.version().step()),
                      absl::FormatTime("%Y-%m-%d %H:%M:%S", created, absl::LocalTimeZone()),
                      Bytes(generation.bytes())});
    }
    out_ << Table(rows);
    return status;
  }

  absl::Status Restore() {
    v1::RestoreGenerationRequest request;
    uint64_t number = 0;
    if (!absl::SimpleAtoi(line_.flags.at("generation"), &number)) {
      return absl::InvalidArgumentError("--generation is a number that `generations` says");
    }
    request.set_factor(argument(0));
    request.set_number(number);
    grpc::ClientContext context;
    v1::RestoreGenerationResponse response;
    absl::Status status = FromGrpc(stub_->RestoreGeneration(&context, request, &response));
    if (status.ok()) out_ << (json() ? "{}\n" : "restored\n");
    return status;
  }

  // ---- Export

  absl::Status Export() {
    const std::string& name = argument(0);
    if (!name.empty() && name.back() != '/') return ExportOne(name, argument(1));
    const auto factors = client_.List(name);
    if (!factors.ok()) return factors.status();
    for (const v1::FactorInfo& factor : *factors) {
      const fs::path path = fs::path(argument(1)) / (factor.name() + kSuffix);
      std::error_code error;
      fs::create_directories(path.parent_path(), error);
      if (error) return FileError("make", path.parent_path());
      if (absl::Status status = ExportOne(factor.name(), path); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  // A file that is there is whole.
  absl::Status ExportOne(const std::string& name, const fs::path& path) {
    const fs::path temporary = path.string() + ".tmp";
    absl::Status status = Receive(name, temporary);
    std::error_code error;
    if (status.ok()) {
      fs::rename(temporary, path, error);
      if (error) status = FileError("write", path);
    }
    if (!status.ok()) {
      fs::remove(temporary, error);
      return status;
    }
    PrintDone("exported", name, path);
    return status;
  }

  absl::Status Receive(const std::string& name, const fs::path& path) {
    grpc::ClientContext context;
    v1::ExportFactorRequest request;
    request.set_factor(name);
    const auto stream = stub_->ExportFactor(&context, request);
    std::ofstream file(path, std::ios::binary);
    ProgressBar bar(err_, err_is_terminal_);
    int64_t done = 0;
    v1::ExportFactorResponse response;
    while (stream->Read(&response)) {
      file.write(response.data().data(), static_cast<std::streamsize>(response.data().size()));
      done += static_cast<int64_t>(response.data().size());
      bar.Update(done, response.total_bytes());
    }
    if (absl::Status status = FromGrpc(stream->Finish()); !status.ok()) return status;
    file.close();
    return file ? absl::OkStatus() : FileError("write", path);
  }

  // ---- Import

  absl::Status Import() {
    const fs::path path = argument(0);
    const std::string name = line_.has("name") ? line_.flags.at("name") : "";
    std::error_code error;
    if (!fs::is_directory(path, error)) return ImportOne(path, name);
    if (!name.empty()) return absl::InvalidArgumentError("--name is for one file");
    std::set<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(path, error)) {
      if (entry.path().extension() == kSuffix) files.insert(entry.path());
    }
    if (error || files.empty()) return FileError("find exported files in", path);
    for (const fs::path& file : files) {
      if (absl::Status status = ImportOne(file, ""); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status ImportOne(const fs::path& path, const std::string& name) {
    std::error_code error;
    const auto total = static_cast<int64_t>(fs::file_size(path, error));
    std::ifstream file(path, std::ios::binary);
    if (error || !file) return FileError("read", path);
    grpc::ClientContext context;
    v1::ImportFactorResponse response;
    const auto stream = stub_->ImportFactor(&context, &response);
    v1::ImportFactorRequest request;
    request.mutable_header()->set_factor(name);
    request.mutable_header()->set_replace(line_.has("replace"));
    bool taken = stream->Write(request);
    {
      ProgressBar bar(err_, err_is_terminal_);
      for (int64_t done = 0; taken && done < total;) {
        std::string& data = *request.mutable_data();
        data.resize(std::min<int64_t>(total - done, kChunkBytes));
        if (!file.read(data.data(), static_cast<std::streamsize>(data.size()))) {
          context.TryCancel();
          return FileError("read", path);
        }
        done += static_cast<int64_t>(data.size());
        taken = stream->Write(request);
        bar.Update(done, total);
      }
    }
    stream->WritesDone();
    if (absl::Status status = FromGrpc(stream->Finish()); !status.ok()) return status;
    PrintDone("imported", response.factor(), path);
    return absl::OkStatus();
  }

  absl::Status Backup() {
    grpc::ClientContext context;
    v1::BackupRequest request;
    request.set_name(argument(0));
    v1::BackupResponse response;
    absl::Status status = FromGrpc(stub_->Backup(&context, request, &response));
    if (!status.ok()) return status;
    if (json()) {
      out_ << Json(response);
    } else {
      out_ << response.path() << "\n";
    }
    return status;
  }

  void PrintDone(const char* done, const std::string& factor, const fs::path& path) {
    if (!json()) {
      out_ << done << " " << factor << ": " << path.string() << "\n";
      return;
    }
    v1::ImportFactorResponse named;
    named.set_factor(factor);
    out_ << JsonLine(named);
  }

  const std::unique_ptr<v1::DataService::Stub> stub_;
  Client& client_;
  const CommandLine& line_;
  std::ostream& out_;
  std::ostream& err_;
  const bool err_is_terminal_;
};

}  // namespace

bool IsDataCommand(std::string_view command) {
  for (const std::string_view known :
       {"snapshot", "generations", "restore", "export", "import", "backup"}) {
    if (command == known) return true;
  }
  return false;
}

absl::Status RunDataCommand(const std::shared_ptr<grpc::Channel>& channel, Client& client,
                            const CommandLine& line, std::ostream& out, std::ostream& err,
                            bool err_is_terminal) {
  return DataCommands(channel, client, line, out, err, err_is_terminal).Run();
}

}  // namespace fisherd::ctl
