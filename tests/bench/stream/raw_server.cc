#include "tests/bench/stream/raw_server.h"

#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>
#include <signal.h>

#include <cstdio>
#include <cstring>
#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "core/mutex.h"
#include "server/server.h"
#include "tests/bench/core/die.h"

namespace fisherd::bench {
namespace {

// One read and one write at a time, as server::UpdateStream.
class RawStream final : public grpc::ServerGenericBidiReactor {
 public:
  RawStream() { StartRead(&request_); }

  void OnReadDone(bool ok) override {
    core::MutexLock lock(&mutex_);
    if (!ok) {
      ended_ = true;
    } else {
      Count();
      request_.Clear();
      StartRead(&request_);
    }
    Proceed();
  }

  void OnWriteDone(bool ok) override {
    core::MutexLock lock(&mutex_);
    writing_ = false;
    ended_ |= !ok;
    Proceed();
  }

  void OnDone() override { delete this; }

 private:
  void Count() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (messages_per_batch_ > 0) {
      ++messages_;
      return;
    }
    grpc::Slice slice;
    if (!request_.DumpToSingleSlice(&slice).ok() ||
        !absl::SimpleAtoi(
            absl::string_view(reinterpret_cast<const char*>(slice.begin()), slice.size()),
            &messages_per_batch_) ||
        messages_per_batch_ < 1) {
      Die("not a number of messages");
    }
  }

  void Proceed() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
    if (writing_ || finished_) return;
    const int64_t batches = messages_per_batch_ > 0 ? messages_ / messages_per_batch_ : 0;
    if (ended_) {
      finished_ = true;
      Finish(grpc::Status::OK);
    } else if (batches > told_) {
      told_ = batches;
      char answer[kRawAnswerBytes] = {};
      std::memcpy(answer, &batches, sizeof batches);
      const grpc::Slice slice(answer, sizeof answer);
      response_ = grpc::ByteBuffer(&slice, 1);
      writing_ = true;
      StartWrite(&response_);
    }
  }

  core::Mutex mutex_;
  int64_t messages_per_batch_ ABSL_GUARDED_BY(mutex_) = 0;  // not known yet
  int64_t messages_ ABSL_GUARDED_BY(mutex_) = 0;
  int64_t told_ ABSL_GUARDED_BY(mutex_) = 0;
  bool writing_ ABSL_GUARDED_BY(mutex_) = false;
  bool ended_ ABSL_GUARDED_BY(mutex_) = false;
  bool finished_ ABSL_GUARDED_BY(mutex_) = false;
  grpc::ByteBuffer request_;
  grpc::ByteBuffer response_;
};

class RawService final : public grpc::CallbackGenericService {
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new RawStream;
  }
};

}  // namespace

int RunRawServer(const std::vector<std::string>& arguments) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  RawService service;
  grpc::ServerBuilder builder;
  int port = 0;
  std::string port_file;
  for (const std::string& argument : arguments) {
    absl::string_view value = argument;
    if (absl::ConsumePrefix(&value, "--listen=")) {
      for (const absl::string_view address : absl::StrSplit(value, ',')) {
        int* const chosen = port == 0 && !absl::StartsWith(address, "unix:") ? &port : nullptr;
        builder.AddListeningPort(std::string(address), grpc::InsecureServerCredentials(), chosen);
      }
    } else if (absl::ConsumePrefix(&value, "--port-file=")) {
      port_file = std::string(value);
    }
  }
  builder.RegisterCallbackGenericService(&service);
  server::SetTransport(builder);
  const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
  if (server == nullptr) Die("the raw server cannot listen");
  std::ofstream(port_file + ".tmp") << port << '\n';
  if (std::rename((port_file + ".tmp").c_str(), port_file.c_str()) != 0) Die("no port file");
  int signal;
  sigwait(&signals, &signal);
  server->Shutdown(std::chrono::system_clock::now());
  return 0;
}

}  // namespace fisherd::bench
