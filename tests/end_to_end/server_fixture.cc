#include "tests/end_to_end/server_fixture.h"

#include <unistd.h>

#include <algorithm>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/batch_reader.h"
#include "grpcpp/create_channel.h"
#include "server/codec.h"
#include "tests/core/testing.h"

namespace fisherd::server {
namespace {

core::DataType CoreType(v1::DataType type) { return *FromProto(type, "dtype"); }

int64_t SizeOf(v1::DataType type) { return core::SizeOf(CoreType(type)); }

uint32_t Crc32c(const std::string& data) { return core::Crc32c(0, std::as_bytes(std::span(data))); }

int64_t ElementsOf(const v1::TensorSpec& tensor) {
  int64_t elements = 1;
  for (const int64_t size : tensor.shape()) elements *= size;
  return elements;
}

// Of this process alone.
std::string SocketAddress() {
  return absl::StrCat("unix:", testing::TempDir(), "fisherd_end_to_end_", getpid());
}

// Takes one chunk of an answer into its tensor.
void TakeChunk(const v1::TensorChunk& chunk,
               const google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs,
               std::vector<Values>& tensors) {
  ASSERT_LT(chunk.tensor(), specs.size());
  for (int before = 0; before < chunk.tensor(); ++before) {
    ASSERT_EQ(tensors[before].size(), ElementsOf(specs[before])) << "tensor " << before;
  }
  Values& tensor = tensors[chunk.tensor()];
  ASSERT_EQ(chunk.first_element(), tensor.size());
  ASSERT_LE(chunk.data().size(), size_t{1} << 20);
  ASSERT_EQ(chunk.crc32c(), Crc32c(chunk.data()));
  const Values values = Decode(chunk.data(), specs[chunk.tensor()].dtype());
  tensor.insert(tensor.end(), values.begin(), values.end());
}

}  // namespace

v1::FactorSpec LayerSpec(int64_t inputs, int64_t outputs, bool has_bias, int towers) {
  v1::FactorSpec spec;
  spec.mutable_fully_connected_diagonal()->set_input_size(inputs);
  spec.mutable_fully_connected_diagonal()->set_output_size(outputs);
  spec.mutable_fully_connected_diagonal()->set_has_bias(has_bias);
  spec.set_towers(towers);
  return spec;
}

v1::Operator Covariance() {
  v1::Operator op;
  op.mutable_covariance();
  return op;
}

v1::Operator Matpower(double exponent, double damping) {
  v1::Operator op;
  op.mutable_matpower()->set_exponent(exponent);
  op.mutable_matpower()->mutable_damping()->set_value(damping);
  return op;
}

v1::Operator Matpower(double exponent, const std::string& damping) {
  v1::Operator op;
  op.mutable_matpower()->set_exponent(exponent);
  op.mutable_matpower()->mutable_damping()->set_name(damping);
  return op;
}

v1::Operator Cholesky(double damping) {
  v1::Operator op;
  op.mutable_cholesky()->mutable_damping()->set_value(damping);
  return op;
}

v1::Operator CholeskyInverse(double damping) {
  v1::Operator op;
  op.mutable_cholesky_inverse()->mutable_damping()->set_value(damping);
  return op;
}

v1::ReadRequest ReadOf(const std::string& factor, const v1::Operator& op) {
  v1::ReadRequest request;
  request.set_factor(factor);
  *request.mutable_operator_() = op;
  return request;
}

std::string Encode(const Values& values, v1::DataType type) {
  const std::vector<std::byte> bytes = core::ToBytes(values, CoreType(type));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

Values Decode(const std::string& data, v1::DataType type) {
  return core::FromBytes(std::as_bytes(std::span(data)), CoreType(type));
}

v1::TensorChunk Chunk(int tensor, int64_t first_element, const std::string& data) {
  v1::TensorChunk chunk;
  chunk.set_tensor(tensor);
  chunk.set_first_element(first_element);
  chunk.set_data(data);
  chunk.set_crc32c(Crc32c(data));
  return chunk;
}

Batch& Batch::Add(v1::TensorRole role, int64_t width, const Values& values, int source,
                  v1::DataType type) {
  v1::TensorSpec& tensor = *header.add_tensors();
  tensor.set_role(role);
  tensor.set_source(source);
  tensor.set_dtype(type);
  tensor.add_shape(header.rows());
  if (width > 0) tensor.add_shape(width);
  tensors.push_back(values);
  return *this;
}

Batch NewBatch(const v1::FactorInfo& factor, int64_t step, int tower, int64_t rows) {
  Batch batch;
  batch.header.set_factor(factor.name());
  batch.header.set_incarnation(factor.version().incarnation());
  batch.header.set_step(step);
  batch.header.set_tower(tower);
  batch.header.set_rows(rows);
  batch.header.set_decay(0.5);
  std::string digest = absl::StrCat(step, "/", tower, "/", rows);
  digest.resize(16);
  batch.header.set_digest(digest);
  return batch;
}

Batch RawBatch(const v1::FactorInfo& factor, int64_t step, int tower, int64_t rows,
               const Values& inputs, const Values& grads) {
  const v1::FullyConnectedDiagonal& layer = factor.spec().fully_connected_diagonal();
  Batch batch = NewBatch(factor, step, tower, rows);
  batch.Add(v1::TENSOR_ROLE_INPUTS, layer.input_size(), inputs);
  batch.Add(v1::TENSOR_ROLE_OUTPUTS_GRADS, layer.output_size(), grads);
  return batch;
}

Batch GoldenBatch(const v1::FactorInfo& factor, int64_t step, int tower) {
  return RawBatch(factor, step, tower, 2, {1, 2, 3, 4}, {1, -1, 2, 0.5});
}

std::vector<v1::UpdateRequest> Frames(const Batch& batch, int64_t rows_per_frame) {
  std::vector<v1::UpdateRequest> frames(1);
  *frames[0].mutable_header() = batch.header;
  for (int64_t row = 0; row < batch.header.rows(); row += rows_per_frame) {
    const int64_t count = std::min(rows_per_frame, batch.header.rows() - row);
    v1::BatchRows& rows = *frames.emplace_back().mutable_rows();
    for (size_t t = 0; t < batch.tensors.size(); ++t) {
      const v1::TensorSpec& tensor = batch.header.tensors(t);
      const int64_t row_bytes =
          (tensor.shape_size() == 2 ? tensor.shape(1) : 1) * SizeOf(tensor.dtype());
      rows.mutable_data()->append(Encode(batch.tensors[t], tensor.dtype()), row * row_bytes,
                                  count * row_bytes);
    }
    rows.set_first_row(row);
    rows.set_row_count(count);
    rows.set_crc32c(Crc32c(rows.data()));
  }
  frames.emplace_back().mutable_end()->set_rows(batch.header.rows());
  return frames;
}

v1::UpdateRequest OneFrame(const Batch& batch) {
  v1::UpdateRequest message;
  for (const v1::UpdateRequest& frame : Frames(batch, batch.header.rows())) {
    message.MergeFrom(frame);
  }
  return message;
}

google::rpc::Status RpcStatusOf(const grpc::Status& status) {
  google::rpc::Status rpc;
  EXPECT_TRUE(rpc.ParseFromString(status.error_details()));
  return rpc;
}

google::rpc::ErrorInfo ErrorInfoOf(const google::rpc::Status& status) {
  google::rpc::ErrorInfo info;
  for (const auto& detail : status.details()) {
    if (detail.UnpackTo(&info)) break;
  }
  return info;
}

ReadAnswer ReadAll(v1::FactorService::Stub& stub, const v1::ReadRequest& request,
                   std::optional<absl::Duration> deadline) {
  grpc::ClientContext context;
  if (deadline) context.set_deadline(absl::ToChronoTime(absl::Now() + *deadline));
  const auto stream = stub.Read(&context, request);
  ReadAnswer answer;
  v1::ReadResponse response;
  for (bool first = true; stream->Read(&response); first = false) {
    EXPECT_EQ(response.has_header(), first);
    if (first) {
      answer.header = response.header();
      answer.tensors.resize(answer.header.tensors_size());
    } else {
      TakeChunk(response.chunk(), answer.header.tensors(), answer.tensors);
    }
  }
  answer.status = stream->Finish();
  if (!answer.status.ok()) return answer;
  for (int t = 0; t < answer.header.tensors_size(); ++t) {
    EXPECT_EQ(answer.tensors[t].size(), ElementsOf(answer.header.tensors(t)));
  }
  return answer;
}

MultiplyAnswer MultiplyAll(v1::FactorService::Stub& stub, const v1::MultiplyHeader& header,
                           const std::vector<Values>& x, v1::DataType type,
                           int64_t chunk_elements) {
  grpc::ClientContext context;
  const auto stream = stub.Multiply(&context);
  MultiplyAnswer answer;
  v1::MultiplyRequest request;
  v1::MultiplyResponse response;
  *request.mutable_header() = header;
  stream->Write(request);
  if (stream->Read(&response)) {
    EXPECT_TRUE(response.has_header());
    answer.header = response.header();
    answer.tensors.resize(answer.header.tensors_size());
    for (size_t t = 0; t < x.size(); ++t) {
      for (size_t first = 0; first < x[t].size(); first += chunk_elements) {
        const size_t last = std::min(x[t].size(), first + chunk_elements);
        *request.mutable_chunk() =
            Chunk(t, first, Encode({x[t].begin() + first, x[t].begin() + last}, type));
        if (!stream->Write(request) || !stream->Read(&response)) break;
        EXPECT_EQ(response.chunk().data().size(), request.chunk().data().size());
        TakeChunk(response.chunk(), answer.header.tensors(), answer.tensors);
      }
    }
  }
  stream->WritesDone();
  EXPECT_FALSE(stream->Read(&response));
  answer.status = stream->Finish();
  return answer;
}

Trainer::Trainer(v1::FactorService::Stub& stub, int client, uint64_t stream)
    : stream_(stub.Update(&context_)) {
  v1::UpdateRequest message;
  std::string id = absl::StrCat("client ", client);
  id.resize(16);
  message.mutable_hello()->set_client_id(id);
  message.mutable_hello()->set_stream(stream);
  Write(message);
}

Trainer::~Trainer() {
  if (!finished_) Finish();
}

void Trainer::Write(const v1::UpdateRequest& message) { stream_->Write(message); }

void Trainer::Open(const std::string& factor, int tower, bool take_over) {
  v1::UpdateRequest message;
  message.mutable_open()->set_factor(factor);
  message.mutable_open()->set_tower(tower);
  message.mutable_open()->set_take_over(take_over);
  Write(message);
}

v1::Progress Trainer::Claim(const std::string& factor, int tower, bool take_over) {
  Open(factor, tower, take_over);
  for (auto answer = Answer(); answer.has_value(); answer = Answer()) {
    if (answer->has_ack()) continue;
    EXPECT_TRUE(answer->has_opened()) << answer->DebugString();
    return answer->opened().progress();
  }
  ADD_FAILURE() << "the stream ended";
  return {};
}

void Trainer::Send(const Batch& batch, int64_t rows_per_frame) {
  for (const v1::UpdateRequest& frame : Frames(batch, rows_per_frame)) Write(frame);
}

std::optional<v1::UpdateResponse> Trainer::Answer() {
  v1::UpdateResponse response;
  if (!stream_->Read(&response)) return std::nullopt;
  return response;
}

v1::Progress Trainer::AwaitNext(const std::string& factor, int64_t next) {
  for (auto answer = Answer(); answer.has_value(); answer = Answer()) {
    EXPECT_TRUE(answer->has_ack()) << answer->DebugString();
    const v1::Progress& progress = answer->ack().progress();
    if (progress.factor() == factor && progress.next() >= next) return progress;
  }
  ADD_FAILURE() << "the stream ended before step " << next;
  return {};
}

v1::Refused Trainer::AwaitRefusal() {
  for (auto answer = Answer(); answer.has_value(); answer = Answer()) {
    if (answer->has_ack()) continue;
    EXPECT_TRUE(answer->has_refused()) << answer->DebugString();
    return answer->refused();
  }
  ADD_FAILURE() << "the stream ended";
  return {};
}

Trainer::Loss Trainer::AwaitLoss(int64_t step) {
  v1::Refused first = AwaitRefusal();
  v1::Refused second = AwaitRefusal();
  if (first.step() != 0) std::swap(first, second);
  EXPECT_EQ(first.step(), 0);
  EXPECT_EQ(second.step(), step);
  return {.tower = first.status(), .batch = second.status()};
}

grpc::Status Trainer::Finish() {
  stream_->WritesDone();
  return AwaitEnd();
}

grpc::Status Trainer::AwaitEnd() {
  while (Answer().has_value()) continue;
  finished_ = true;
  return stream_->Finish();
}

std::string NameOf(const testing::TestParamInfo<Transport>& info) {
  switch (info.param) {
    case Transport::kTcp:
      return "Tcp";
    case Transport::kUnix:
      return "Unix";
    case Transport::kInProcess:
      return "InProcess";
  }
  return "";
}

void ServerTest::SetUp() {
  options_.listen = {"127.0.0.1:0", SocketAddress()};
  if (options_.state_budget == 0) options_.state_budget = int64_t{256} << 20;
  if (options_.batch_budget == 0) options_.batch_budget = int64_t{64} << 20;
  options_.compute_threads = 2;
  auto server = Server::Start(options_);
  ASSERT_TRUE(server.ok()) << server.status();
  server_ = *std::move(server);
  stub_ = v1::FactorService::NewStub(NewChannel());
}

std::string ServerTest::Address() const {
  return GetParam() == Transport::kUnix ? SocketAddress()
                                        : absl::StrCat("127.0.0.1:", server_->port());
}

std::shared_ptr<grpc::Channel> ServerTest::NewChannel() {
  if (GetParam() == Transport::kInProcess) return server_->InProcessChannel();
  grpc::ChannelArguments arguments;
  // Trainers of other processes do not share a connection either.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(Address(), grpc::InsecureChannelCredentials(), arguments);
}

v1::FactorInfo ServerTest::Create(const std::string& name, const v1::FactorSpec& spec) {
  v1::CreateFactorRequest request;
  request.set_name(name);
  *request.mutable_spec() = spec;
  v1::CreateFactorResponse response;
  const grpc::Status status = Call(&v1::FactorService::Stub::CreateFactor, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.factor();
}

v1::FactorInfo ServerTest::Describe(const std::string& name) {
  v1::DescribeFactorRequest request;
  request.set_name(name);
  v1::DescribeFactorResponse response;
  const grpc::Status status = Call(&v1::FactorService::Stub::DescribeFactor, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
  return response.factor();
}

v1::FactorInfo ServerTest::CreateGolden(const std::string& name) {
  const v1::FactorInfo factor = Create(name, LayerSpec(2, 2));
  Trainer trainer(stub(), 1000);
  trainer.Claim(name);
  trainer.Send(GoldenBatch(factor));
  trainer.AwaitNext(name, 2);
  EXPECT_TRUE(trainer.Finish().ok());
  return Describe(name);
}

void ServerTest::SetDamping(const std::string& name, double value) {
  v1::SetDampingRequest request;
  request.set_name(name);
  request.set_value(value);
  v1::SetDampingResponse response;
  const grpc::Status status = Call(&v1::FactorService::Stub::SetDamping, request, &response);
  EXPECT_TRUE(status.ok()) << status.error_message();
}

}  // namespace fisherd::server
