// A real server and raw generated stubs, over TCP, a Unix socket or in-process, for the end-to-end
// tests.

#ifndef FISHERD_TESTS_END_TO_END_SERVER_FIXTURE_H_
#define FISHERD_TESTS_END_TO_END_SERVER_FIXTURE_H_

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <vector>

#include "fisherd/v1/factor_service.grpc.pb.h"
#include "google/rpc/error_details.pb.h"
#include "google/rpc/status.pb.h"
#include "server/options.h"
#include "server/server.h"

// As a test's failure shows them.
namespace grpc {
inline void PrintTo(const Status& status, std::ostream* out) {
  *out << status.error_code() << " " << status.error_message();
}
}  // namespace grpc
namespace google::rpc {
inline void PrintTo(const Status& status, std::ostream* out) { *out << status.ShortDebugString(); }
}  // namespace google::rpc

namespace fisherd::server {

using Values = std::vector<double>;

// --- Requests ---

v1::FactorSpec LayerSpec(int64_t inputs, int64_t outputs, bool has_bias = true, int towers = 1);
v1::Operator Covariance();
v1::Operator Matpower(double exponent, double damping);
v1::Operator Matpower(double exponent, const std::string& damping);
v1::Operator Cholesky(double damping);
v1::Operator CholeskyInverse(double damping);
v1::ReadRequest ReadOf(const std::string& factor, const v1::Operator& op = Covariance());

// `values` as elements of `type` on the wire, and back.
std::string Encode(const Values& values, v1::DataType type);
Values Decode(const std::string& data, v1::DataType type);
v1::TensorChunk Chunk(int tensor, int64_t first_element, const std::string& data);

// One tower's part of one step, tensors in the order of update.proto.
struct Batch {
  v1::BatchHeader header;
  std::vector<Values> tensors;  // as header.tensors()

  // Appends a tensor [rows, width], or [rows] if width is 0.
  Batch& Add(v1::TensorRole role, int64_t width, const Values& values, int source = 0,
             v1::DataType type = v1::DATA_TYPE_FLOAT32);
};
Batch NewBatch(const v1::FactorInfo& factor, int64_t step, int tower, int64_t rows);
// Inputs and the gradients of one source, for the factor's layer.
Batch RawBatch(const v1::FactorInfo& factor, int64_t step, int tower, int64_t rows,
               const Values& inputs, const Values& grads);
// SPEC §7: A = [[1,2],[3,4]], G = [[1,−1],[2,0.5]].
Batch GoldenBatch(const v1::FactorInfo& factor, int64_t step = 1, int tower = 0);
inline const Values kGoldenCovariance = {18.5, 1.625, 34, 4, 2.5, 0.625};

// The batch as messages of at most `rows_per_frame` rows; header, rows and end apart.
std::vector<v1::UpdateRequest> Frames(const Batch& batch, int64_t rows_per_frame);
// All in one message.
v1::UpdateRequest OneFrame(const Batch& batch);

// --- Answers ---

google::rpc::Status RpcStatusOf(const grpc::Status& status);
google::rpc::ErrorInfo ErrorInfoOf(const google::rpc::Status& status);

// Code, reason and a part of the message, of a grpc::Status or a google.rpc.Status.
MATCHER_P3(IsRpcError, code, reason, message, "") {
  google::rpc::Status rpc;
  if constexpr (std::is_same_v<std::decay_t<decltype(arg)>, grpc::Status>) {
    *result_listener << "code " << arg.error_code() << ", " << arg.error_message();
    if (arg.error_code() != static_cast<grpc::StatusCode>(code)) return false;
    rpc = RpcStatusOf(arg);
  } else {
    rpc = arg;
  }
  const google::rpc::ErrorInfo info = ErrorInfoOf(rpc);
  *result_listener << ", message " << rpc.message() << ", reason " << info.reason();
  return rpc.code() == static_cast<int>(code) && info.reason() == reason &&
         info.domain() == "fisherd" && rpc.message().find(message) != std::string::npos;
}

struct ReadAnswer {
  grpc::Status status;
  v1::ReadHeader header;
  std::vector<Values> tensors;
};
// Reads to the end; checks that chunks come in order, whole and undamaged.
ReadAnswer ReadAll(v1::FactorService::Stub& stub, const v1::ReadRequest& request,
                   std::optional<absl::Duration> deadline = std::nullopt);

struct MultiplyAnswer {
  grpc::Status status;
  v1::MultiplyResponseHeader header;
  std::vector<Values> tensors;
};
// Sends x in chunks of `chunk_elements`.
MultiplyAnswer MultiplyAll(v1::FactorService::Stub& stub, const v1::MultiplyHeader& header,
                           const std::vector<Values>& x, v1::DataType type, int64_t chunk_elements);

// --- Updates ---

// One trainer process with one update stream.
class Trainer {
 public:
  Trainer(v1::FactorService::Stub& stub, int client, uint64_t stream = 1);
  // Closes and waits for the end.
  ~Trainer();

  void Write(const v1::UpdateRequest& message);
  void Open(const std::string& factor, int tower, bool take_over = false);
  // Opens, and is told so.
  v1::Progress Claim(const std::string& factor, int tower = 0, bool take_over = false);
  void Send(const Batch& batch, int64_t rows_per_frame = 1 << 20);

  // The next answer; none once the stream has ended.
  std::optional<v1::UpdateResponse> Answer();
  // Reads acknowledgements of the factor until one has reached `next`.
  v1::Progress AwaitNext(const std::string& factor, int64_t next);
  // The next answer but acknowledgements.
  v1::Refused AwaitRefusal();
  // That a tower is lost, which is told unasked, and that the batch of `step` is refused, in either
  // order.
  struct Loss {
    google::rpc::Status tower;
    google::rpc::Status batch;
  };
  Loss AwaitLoss(int64_t step);

  // Closes this side, reads what is left, and how the stream ended.
  grpc::Status Finish();
  // How it ends by itself.
  grpc::Status AwaitEnd();
  void Cancel() { context_.TryCancel(); }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::UpdateRequest, v1::UpdateResponse>> stream_;
  bool finished_ = false;
};

// --- Server ---

enum class Transport { kTcp, kUnix, kInProcess };
std::string NameOf(const testing::TestParamInfo<Transport>& info);

class ServerTest : public testing::TestWithParam<Transport> {
 protected:
  // With the options that a test's fixture has changed in its constructor.
  void SetUp() override;

  // Where the server is, unless it is in-process.
  std::string Address() const;
  std::shared_ptr<grpc::Channel> NewChannel();
  v1::FactorService::Stub& stub() { return *stub_; }

  v1::FactorInfo Create(const std::string& name, const v1::FactorSpec& spec);
  v1::FactorInfo Describe(const std::string& name);
  // A factor that has committed the golden batch as step 1.
  v1::FactorInfo CreateGolden(const std::string& name);
  void SetDamping(const std::string& name, double value);

  // A unary call with a fresh context.
  template <typename Method, typename Request, typename Response>
  grpc::Status Call(Method method, const Request& request, Response* response) {
    grpc::ClientContext context;
    return (stub_.get()->*method)(&context, request, response);
  }

  Options options_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::FactorService::Stub> stub_;
};

#define FISHERD_ON_EVERY_TRANSPORT(suite) \
  INSTANTIATE_TEST_SUITE_P(               \
      Transports, suite,                  \
      testing::Values(Transport::kTcp, Transport::kUnix, Transport::kInProcess), NameOf)

}  // namespace fisherd::server

#endif  // FISHERD_TESTS_END_TO_END_SERVER_FIXTURE_H_
