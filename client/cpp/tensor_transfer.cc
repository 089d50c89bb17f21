#include "client/cpp/tensor_transfer.h"

#include <grpcpp/grpcpp.h>

#include <optional>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/cpp/chunks.h"
#include "client/cpp/errors.h"

namespace fisherd {
namespace {

constexpr int64_t kMaxElements = int64_t{1} << 48;

int64_t SizeOf(v1::DataType dtype) { return dtype == v1::DATA_TYPE_FLOAT64 ? 8 : 4; }

absl::Status Malformed(const std::string& message) {
  return MakeError(absl::StatusCode::kDataLoss, "MALFORMED_FRAME", message);
}

// Whether a and b are sizes whose product is within bounds.
bool AreSizes(int64_t a, int64_t b) { return a >= 1 && b >= 1 && a <= kMaxElements / b; }

using MultiplyCall = grpc::ClientReaderWriterInterface<v1::MultiplyRequest, v1::MultiplyResponse>;

// Until the call ends, if it does so before all is sent.
void SendAll(MultiplyCall& call, const std::vector<Multiplication>& multiplications) {
  v1::MultiplyRequest request;
  for (const Multiplication& multiplication : multiplications) {
    *request.mutable_header() = multiplication.header;
    bool sent = call.Write(request);
    ChunkCutter cutter(multiplication.x, SizeOf(multiplication.header.dtype()));
    while (sent && cutter.Next(*request.mutable_chunk())) sent = call.Write(request);
    if (!sent) break;
  }
  call.WritesDone();
}

// Ends a call whose answer cannot be used.
absl::Status Abandon(grpc::ClientContext& context, absl::Status why) {
  context.TryCancel();
  return why;
}

}  // namespace

absl::StatusOr<ResultShape> CheckTensors(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& tensors, v1::DataType dtype) {
  ResultShape shape;
  bool good = tensors.size() == 1 || tensors.size() == 2;
  for (const v1::TensorSpec& tensor : tensors) good = good && tensor.dtype() == dtype;
  if (good) {
    const v1::TensorSpec& weight = tensors[0];
    good = weight.role() == v1::TENSOR_ROLE_WEIGHT && weight.shape_size() == 2 &&
           AreSizes(weight.shape(0), weight.shape(1));
    if (good) {
      shape.weight_rows = weight.shape(0);
      shape.weight_cols = weight.shape(1);
    }
  }
  if (good && tensors.size() == 2) {
    const v1::TensorSpec& bias = tensors[1];
    good =
        bias.role() == v1::TENSOR_ROLE_BIAS && bias.shape_size() == 1 && AreSizes(bias.shape(0), 1);
    if (good) shape.bias_size = bias.shape(0);
  }
  if (good) return shape;
  std::string got;
  for (const v1::TensorSpec& tensor : tensors) {
    absl::StrAppend(&got, got.empty() ? "" : "; ", tensor.ShortDebugString());
  }
  return Malformed(absl::StrCat("the answer has the tensors {", got,
                                "}, expected a weight of two axes and at most a bias of one, ",
                                v1::DataType_Name(dtype)));
}

absl::StatusOr<v1::ReadHeader> ReadTensors(
    v1::FactorService::StubInterface& stub, const v1::ReadRequest& request, absl::Time deadline,
    const std::function<void(int64_t done, int64_t total)>& progress, const Allocate& allocate) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  const auto call = stub.Read(&context, request);
  v1::ReadResponse response;
  std::optional<v1::ReadHeader> header;
  std::optional<ChunkAssembler> assembler;
  while (call->Read(&response)) {
    if (!header) {
      if (!response.has_header()) {
        return Abandon(context, Malformed("the answer does not begin with a header"));
      }
      header = response.header();
      if (header->unchanged()) continue;
      const absl::StatusOr<ResultShape> shape = CheckTensors(header->tensors(), request.dtype());
      if (!shape.ok()) return Abandon(context, shape.status());
      assembler.emplace(allocate(*shape), SizeOf(request.dtype()));
      continue;
    }
    if (!response.has_chunk() || !assembler) {
      return Abandon(context, Malformed("the answer goes on with something that is not a chunk"));
    }
    if (absl::Status status = assembler->Add(response.chunk()); !status.ok()) {
      return Abandon(context, status);
    }
    if (progress) progress(assembler->bytes_done(), assembler->bytes_total());
  }
  if (absl::Status status = FromGrpc(call->Finish()); !status.ok()) return status;
  if (!header) return Malformed("the answer is empty");
  if (assembler) {
    if (absl::Status status = assembler->Finish(); !status.ok()) return status;
  }
  return *header;
}

absl::StatusOr<std::vector<v1::MultiplyResponseHeader>> MultiplyTensors(
    v1::FactorService::StubInterface& stub, const std::vector<Multiplication>& multiplications,
    absl::Time deadline) {
  grpc::ClientContext context;
  context.set_deadline(absl::ToChronoTime(deadline));
  const auto call = stub.Multiply(&context);
  // Sends beside the reading below: with both in one thread, client and server could each wait for
  // the other to read. It ends at the latest with the call.
  std::jthread sender([&call, &multiplications] { SendAll(*call, multiplications); });
  std::vector<v1::MultiplyResponseHeader> answers;
  std::optional<ChunkAssembler> assembler;
  v1::MultiplyResponse response;
  while (call->Read(&response)) {
    const bool begins = !assembler || assembler->done();
    if (begins && answers.size() < multiplications.size()) {
      if (!response.has_header()) {
        return Abandon(context, Malformed("an answer does not begin with a header"));
      }
      const Multiplication& multiplication = multiplications[answers.size()];
      const v1::DataType dtype = multiplication.header.dtype();
      answers.push_back(response.header());
      const absl::StatusOr<ResultShape> shape = CheckTensors(answers.back().tensors(), dtype);
      if (!shape.ok()) return Abandon(context, shape.status());
      assembler.emplace(multiplication.allocate(*shape), SizeOf(dtype));
    } else if (!response.has_chunk()) {
      return Abandon(context, Malformed("the answer goes on with something that is not a chunk"));
    } else if (absl::Status status = assembler->Add(response.chunk()); !status.ok()) {
      return Abandon(context, status);
    }
  }
  sender.join();
  if (absl::Status status = FromGrpc(call->Finish()); !status.ok()) return status;
  if (assembler) {
    if (absl::Status status = assembler->Finish(); !status.ok()) return status;
  }
  if (answers.size() < multiplications.size()) {
    return Malformed(absl::StrCat("the answer ended after ", answers.size(), " of ",
                                  multiplications.size(), " products"));
  }
  return answers;
}

}  // namespace fisherd
