#include "fisherd/client.h"

#include <google/protobuf/empty.pb.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <random>
#include <span>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/cpp/channel.h"
#include "client/cpp/errors.h"
#include "client/cpp/tensor_transfer.h"
#include "client/cpp/update_stream_impl.h"
#include "client/cpp/watch.h"
#include "fisherd/v1/factor_service.grpc.pb.h"

namespace fisherd {
namespace {

constexpr int kPageSize = 1000;

// Names this client to the server; only its uniqueness matters.
std::string RandomClientId() {
  std::random_device random;
  std::string id;
  while (id.size() < 16) id.push_back(static_cast<char>(random()));
  return id;
}

template <typename Scalar>
std::span<std::byte> WritableBytes(Scalar* data, int64_t count) {
  return std::as_writable_bytes(std::span(data, static_cast<size_t>(count)));
}

google::protobuf::Duration ToProto(absl::Duration duration) {
  google::protobuf::Duration proto;
  proto.set_seconds(absl::IDivDuration(duration, absl::Seconds(1), &duration));
  proto.set_nanos(static_cast<int32_t>(absl::ToInt64Nanoseconds(duration)));
  return proto;
}

// Message is a ReadRequest or a MultiplyHeader.
template <typename Message>
void SetMinVersion(const std::optional<MinVersion>& from, Message& message) {
  if (!from) return;
  message.mutable_min_version()->set_incarnation(from->incarnation);
  message.mutable_min_version()->set_step(from->step);
}

absl::Status CheckItem(const MultiplyItem& item, v1::DataType dtype) {
  const auto fits = [dtype](const MatrixView& view) {
    return view.dtype() == dtype && view.contiguous();
  };
  if (fits(item.weight) && (!item.bias.present() || fits(item.bias))) return absl::OkStatus();
  return MakeError(absl::StatusCode::kInvalidArgument, "BAD_ARGUMENT",
                   absl::StrCat("factor \"", item.factor, "\": weight or bias is not contiguous ",
                                v1::DataType_Name(dtype)),
                   {{"factor", item.factor}});
}

// Of the item's elements, into `product`.
template <typename Scalar>
Multiplication MultiplicationOf(const MultiplyItem& item, Product<Scalar>& product) {
  Multiplication result;
  result.header.set_factor(item.factor);
  *result.header.mutable_operator_() = item.op;
  result.header.set_layout(item.layout);
  result.header.set_split_bias(true);
  result.header.set_dtype(kDataTypeOf<Scalar>);
  SetMinVersion(item.min_version, result.header);
  for (const MatrixView& x : {item.weight, item.bias}) {
    if (x.present()) result.x.push_back(x.rows(0, x.rows()));
  }
  result.allocate = [&product](const ResultShape& shape) {
    product.weight.resize(shape.weight_rows, shape.weight_cols);
    product.bias.resize(shape.bias_size);
    std::vector<std::span<std::byte>> parts = {
        WritableBytes(product.weight.data(), product.weight.size())};
    if (shape.bias_size > 0) {
      parts.push_back(WritableBytes(product.bias.data(), product.bias.size()));
    }
    return parts;
  };
  return result;
}

}  // namespace

class Client::Impl {
 public:
  Impl(std::shared_ptr<grpc::Channel> channel, const ClientOptions& options)
      : channel_(std::move(channel)),
        stub_(v1::FactorService::NewStub(channel_)),
        options_(options),
        identity_(std::make_shared<ClientIdentity>()) {
    identity_->id = RandomClientId();
  }

  v1::FactorService::Stub& stub() { return *stub_; }
  const std::shared_ptr<v1::FactorService::Stub>& shared_stub() const { return stub_; }
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }
  const std::shared_ptr<ClientIdentity>& identity() const { return identity_; }

  void SetDeadline(grpc::ClientContext& context) const {
    context.set_deadline(absl::ToChronoTime(absl::Now() + options_.call_timeout));
  }

  template <typename Request, typename Response>
  using Method = grpc::Status (v1::FactorService::Stub::*)(grpc::ClientContext*, const Request&,
                                                           Response*);

  template <typename Request, typename Response>
  absl::StatusOr<Response> Call(Method<Request, Response> method, const Request& request) {
    grpc::ClientContext context;
    SetDeadline(context);
    Response response;
    const grpc::Status status = (stub_.get()->*method)(&context, request, &response);
    if (!status.ok()) return FromGrpc(status);
    return response;
  }

 private:
  const std::shared_ptr<grpc::Channel> channel_;
  const std::shared_ptr<v1::FactorService::Stub> stub_;  // streams may outlive the client
  const ClientOptions options_;
  const std::shared_ptr<ClientIdentity> identity_;
};

namespace {

using Stub = v1::FactorService::Stub;

}  // namespace

Client::Client(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;
Client::~Client() = default;

absl::StatusOr<Client> Client::Connect(const std::string& address, const ClientOptions& options) {
  const auto channel = ConnectChannel(address, options);
  if (!channel.ok()) return channel.status();
  return FromChannel(*channel, options);
}

Client Client::FromChannel(std::shared_ptr<grpc::Channel> channel, const ClientOptions& options) {
  return Client(std::make_unique<Impl>(std::move(channel), options));
}

// ---- Factors

absl::StatusOr<v1::FactorInfo> Client::CreateFactor(std::string_view name,
                                                    const FullyConnectedDiagonal& kind,
                                                    const FactorOptions& options) {
  v1::FactorSpec spec;
  v1::FullyConnectedDiagonal& sizes = *spec.mutable_fully_connected_diagonal();
  sizes.set_input_size(kind.input_size);
  sizes.set_output_size(kind.output_size);
  sizes.set_has_bias(kind.has_bias);
  spec.set_towers(options.towers);
  spec.set_sources(options.sources);
  spec.set_dtype(options.dtype);
  spec.set_tower_weighting(options.tower_weighting);
  spec.set_zero_debias(options.zero_debias);
  spec.set_initial_covariance(options.initial_covariance);
  spec.set_update_mode(options.update_mode);
  spec.set_gather_policy(options.gather_policy);
  if (options.gather_timeout) *spec.mutable_gather_timeout() = ToProto(*options.gather_timeout);
  spec.set_window(options.window);
  spec.set_durability(options.durability);
  spec.set_backend(options.backend);
  return CreateFactor(name, spec);
}

absl::StatusOr<v1::FactorInfo> Client::CreateFactor(std::string_view name,
                                                    const v1::FactorSpec& spec) {
  v1::CreateFactorRequest request;
  request.set_name(std::string(name));
  *request.mutable_spec() = spec;
  auto response = impl_->Call(&Stub::CreateFactor, request);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_factor());
}

absl::StatusOr<v1::FactorInfo> Client::Describe(std::string_view name) {
  v1::DescribeFactorRequest request;
  request.set_name(std::string(name));
  auto response = impl_->Call(&Stub::DescribeFactor, request);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_factor());
}

absl::StatusOr<std::vector<v1::FactorInfo>> Client::List(std::string_view prefix) {
  std::vector<v1::FactorInfo> factors;
  v1::ListFactorsRequest request;
  request.set_prefix(std::string(prefix));
  request.set_page_size(kPageSize);
  do {
    auto response = impl_->Call(&Stub::ListFactors, request);
    if (!response.ok()) return response.status();
    for (v1::FactorInfo& factor : *response->mutable_factors()) {
      factors.push_back(std::move(factor));
    }
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  return factors;
}

absl::Status Client::Delete(std::string_view name) {
  v1::DeleteFactorRequest request;
  request.set_name(std::string(name));
  return impl_->Call(&Stub::DeleteFactor, request).status();
}

absl::StatusOr<v1::FactorInfo> Client::Reset(std::string_view name) {
  v1::ResetFactorRequest request;
  request.set_name(std::string(name));
  auto response = impl_->Call(&Stub::ResetFactor, request);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_factor());
}

absl::StatusOr<int64_t> Client::SetTowers(std::string_view name, int towers, bool now) {
  v1::SetTowersRequest request;
  request.set_name(std::string(name));
  request.set_towers(towers);
  request.set_now(now);
  auto response = impl_->Call(&Stub::SetTowers, request);
  if (!response.ok()) return response.status();
  return response->from_step();
}

// ---- Damping functions

absl::Status Client::SetDamping(std::string_view name, double value) {
  v1::SetDampingRequest request;
  request.set_name(std::string(name));
  request.set_value(value);
  return impl_->Call(&Stub::SetDamping, request).status();
}

absl::StatusOr<std::vector<v1::DampingInfo>> Client::ListDampings(std::string_view prefix) {
  std::vector<v1::DampingInfo> dampings;
  v1::ListDampingsRequest request;
  request.set_prefix(std::string(prefix));
  request.set_page_size(kPageSize);
  do {
    auto response = impl_->Call(&Stub::ListDampings, request);
    if (!response.ok()) return response.status();
    for (v1::DampingInfo& damping : *response->mutable_dampings()) {
      dampings.push_back(std::move(damping));
    }
    request.set_page_token(response->next_page_token());
  } while (!request.page_token().empty());
  return dampings;
}

absl::Status Client::DeleteDamping(std::string_view name) {
  v1::DeleteDampingRequest request;
  request.set_name(std::string(name));
  return impl_->Call(&Stub::DeleteDamping, request).status();
}

// ---- Registered results

absl::StatusOr<v1::Registration> Client::Register(std::string_view factor, const v1::Operator& op,
                                                  const v1::RefreshPolicy& policy) {
  v1::RegisterRequest request;
  request.set_factor(std::string(factor));
  *request.mutable_operator_() = op;
  *request.mutable_policy() = policy;
  auto response = impl_->Call(&Stub::Register, request);
  if (!response.ok()) return response.status();
  return std::move(*response->mutable_registration());
}

absl::Status Client::Unregister(std::string_view factor, const v1::Operator& op) {
  v1::UnregisterRequest request;
  request.set_factor(std::string(factor));
  *request.mutable_operator_() = op;
  return impl_->Call(&Stub::Unregister, request).status();
}

absl::StatusOr<int> Client::UpdateInverses(std::string_view factor) {
  v1::UpdateInversesRequest request;
  request.set_factor(std::string(factor));
  auto response = impl_->Call(&Stub::UpdateInverses, request);
  if (!response.ok()) return response.status();
  return response->updated();
}

// ---- Health

absl::Status Client::CheckHealth() {
  // grpc.health.v1.Health, without its generated code: the request's only field, the service, stays
  // empty; the answer's only field, number 1, is 1 for SERVING.
  using google::protobuf::Empty;
  grpc::TemplatedGenericStub<Empty, Empty> stub(impl_->channel());
  grpc::ClientContext context;
  impl_->SetDeadline(context);
  grpc::CompletionQueue queue;
  const auto call =
      stub.PrepareUnaryCall(&context, "/grpc.health.v1.Health/Check", Empty(), &queue);
  Empty answer;
  grpc::Status status;
  call->StartCall();
  call->Finish(&answer, &status, nullptr);
  void* tag;
  bool ok;
  queue.Next(&tag, &ok);
  if (!status.ok()) return FromGrpc(status);
  const auto& fields = answer.GetReflection()->GetUnknownFields(answer);
  for (int i = 0; i < fields.field_count(); ++i) {
    if (fields.field(i).number() == 1 && fields.field(i).varint() == 1) return absl::OkStatus();
  }
  return absl::UnavailableError("the server is up but not serving");
}

// ---- Tensors

template <FloatOrDouble Scalar>
absl::StatusOr<Reading<Scalar>> Client::Read(std::string_view factor, const v1::Operator& op,
                                             const ReadOptions& options) {
  v1::ReadRequest request;
  request.set_factor(std::string(factor));
  *request.mutable_operator_() = op;
  request.set_layout(options.layout);
  request.set_split_bias(true);
  request.set_dtype(kDataTypeOf<Scalar>);
  if (options.if_version_not) *request.mutable_if_version_not() = *options.if_version_not;
  SetMinVersion(options.min_version, request);

  ResultShape shape;
  Vector<Scalar> diagonal;
  const auto allocate = [&](const ResultShape& announced) {
    shape = announced;
    diagonal.resize(shape.size());
    std::vector<std::span<std::byte>> parts = {WritableBytes(diagonal.data(), shape.weight_size())};
    if (shape.bias_size > 0) {
      parts.push_back(WritableBytes(diagonal.data() + shape.weight_size(), shape.bias_size));
    }
    return parts;
  };
  absl::StatusOr<v1::ReadHeader> header = ReadTensors(
      impl_->stub(), request, absl::Now() + options.timeout, options.progress, allocate);
  if (!header.ok()) return header.status();
  Reading<Scalar> reading;
  reading.unchanged = header->unchanged();
  reading.info = std::move(*header->mutable_operator_());
  reading.value = LinearOperatorDiag<Scalar>(shape.weight_rows, shape.weight_cols, shape.bias_size,
                                             std::move(diagonal));
  return reading;
}

template <FloatOrDouble Scalar>
absl::StatusOr<Product<Scalar>> Client::Multiply(std::string_view factor, const v1::Operator& op,
                                                 const Matrix<Scalar>& weight,
                                                 const Vector<Scalar>& bias,
                                                 const MultiplyOptions& options) {
  const MultiplyItem item = {.factor = std::string(factor),
                             .op = op,
                             .weight = weight,
                             .bias = bias.size() > 0 ? MatrixView(bias) : MatrixView(),
                             .layout = options.layout,
                             .min_version = options.min_version};
  auto products = MultiplyAll<Scalar>({&item, 1}, options.timeout);
  if (!products.ok()) return products.status();
  return std::move(products->front());
}

template <FloatOrDouble Scalar>
absl::StatusOr<std::vector<Product<Scalar>>> Client::MultiplyAll(
    std::span<const MultiplyItem> items, absl::Duration timeout) {
  if (items.empty()) return std::vector<Product<Scalar>>();
  std::vector<Product<Scalar>> products(items.size());
  std::vector<Multiplication> multiplications;
  for (size_t i = 0; i < items.size(); ++i) {
    if (absl::Status status = CheckItem(items[i], kDataTypeOf<Scalar>); !status.ok()) return status;
    multiplications.push_back(MultiplicationOf(items[i], products[i]));
  }
  absl::StatusOr<std::vector<v1::MultiplyResponseHeader>> answers =
      MultiplyTensors(impl_->stub(), multiplications, absl::Now() + timeout);
  if (!answers.ok()) return answers.status();
  for (size_t i = 0; i < items.size(); ++i) {
    products[i].info = std::move(*(*answers)[i].mutable_operator_());
  }
  return products;
}

template absl::StatusOr<Reading<float>> Client::Read(std::string_view, const v1::Operator&,
                                                     const ReadOptions&);
template absl::StatusOr<Reading<double>> Client::Read(std::string_view, const v1::Operator&,
                                                      const ReadOptions&);
template absl::StatusOr<Product<float>> Client::Multiply(std::string_view, const v1::Operator&,
                                                         const Matrix<float>&, const Vector<float>&,
                                                         const MultiplyOptions&);
template absl::StatusOr<Product<double>> Client::Multiply(std::string_view, const v1::Operator&,
                                                          const Matrix<double>&,
                                                          const Vector<double>&,
                                                          const MultiplyOptions&);
template absl::StatusOr<std::vector<Product<float>>> Client::MultiplyAll(
    std::span<const MultiplyItem>, absl::Duration);
template absl::StatusOr<std::vector<Product<double>>> Client::MultiplyAll(
    std::span<const MultiplyItem>, absl::Duration);

absl::Status Client::Watch(std::string_view prefix,
                           const std::function<bool(const v1::FactorEvent&)>& callback) {
  return WatchEvents(impl_->stub(), prefix, callback);
}

UpdateStream Client::OpenUpdates(const UpdateStreamOptions& options) {
  return UpdateStream(std::make_shared<UpdateStream::Impl>(impl_->channel(), impl_->shared_stub(),
                                                           impl_->identity(), options));
}

}  // namespace fisherd
