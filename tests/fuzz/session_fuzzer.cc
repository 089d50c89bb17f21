// A trainer gone mad: a sequence of messages, most of them nearly right, against a real registry
// with small budgets. Nothing may crash, memory stays within the budgets, and every stream ends or
// goes on as update.proto says.

#include <fcntl.h>
#include <fuzzer/FuzzedDataProvider.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/backend_cpu.h"
#include "core/batch_reader.h"
#include "core/compute_pool.h"
#include "core/error.h"
#include "core/factor_registry.h"
#include "google/protobuf/stubs/logging.h"
#include "server/session.h"
#include "server/session_table.h"
#include "server/shared_regions.h"

namespace fisherd::server {
namespace {

constexpr int64_t kBudget = 1 << 14;
constexpr int64_t kSharedBytes = 5000;

void Require(bool condition) {
  if (!condition) std::abort();
}

// Outlives the inputs, so that each costs no threads.
struct Environment {
  core::ComputePool pool{1};
  core::BackendCpu backend{nullptr};
  SharedRegions regions{kSharedBytes};
  int memory = -1;
  std::string token;

  Environment() {
    memory = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    Require(ftruncate(memory, kSharedBytes) == 0);
    Require(fcntl(memory, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    token = *regions.Add(memory);
  }
};

Environment& SharedEnvironment() {
  static auto& environment = *new Environment;
  return environment;
}

class Fuzz {
 public:
  explicit Fuzz(FuzzedDataProvider& input) : input_(input) {
    core::FactorSpec spec;
    spec.kind = core::FullyConnectedDiagonalSpec{2, 1, true};
    Require(registry_->Create("a", spec).ok());
    spec.towers = 2;
    spec.sources = 2;
    spec.dtype = core::DataType::kFloat64;
    Require(registry_->Create("b/c", spec).ok());
  }

  ~Fuzz() {
    for (Stream& stream : streams_) Close(stream);
    Drain();
    Require(registry_->Delete("a").ok() && registry_->Delete("b/c").ok());
    Drain();
    Require(registry_->batch_budget().used() == 0);
    Require(registry_->state_budget().used() == 0);
  }

  void Run() {
    for (int i = 0; i < 64 && input_.remaining_bytes() > 0; ++i) {
      Stream& stream = streams_[input_.ConsumeBool()];
      switch (input_.ConsumeIntegralInRange(0, 15)) {
        case 0:
          Close(stream);
          break;
        case 1:
          Require(registry_->Reset(Name()).ok());
          break;
        case 2:
          TakeAnswers(stream);
          break;
        case 3:
          Send(stream, input_.ConsumeRandomLengthString());
          break;
        case 4:
          Drain();
          break;
        default:
          Send(stream, Message().SerializeAsString());
      }
      Require(registry_->batch_budget().used() <= kBudget);
      Require(registry_->state_budget().used() <= kBudget);
    }
  }

 private:
  struct Stream {
    std::shared_ptr<Session> session;
  };

  void Close(Stream& stream) {
    if (stream.session != nullptr) stream.session->Close(absl::OkStatus());
    stream = {};
  }

  void TakeAnswers(Stream& stream) {
    if (stream.session == nullptr) return;
    while (const auto answer = stream.session->NextAnswer()) {
      std::string bytes;
      Require(answer->SerializeToString(&bytes) && bytes.size() < 8192);
      Require(answer->answer_case() != v1::UpdateResponse::ANSWER_NOT_SET);
      if (answer->has_refused()) {
        Require(answer->refused().status().code() != 0);
        Require(answer->refused().status().details_size() > 0);
      }
    }
  }

  void Send(Stream& stream, const std::string& bytes) {
    if (stream.session == nullptr) {
      stream.session = std::make_shared<Session>(
          *registry_, sessions_, [] {}, Right() ? &SharedEnvironment().regions : nullptr);
      Require(sessions_.Add(stream.session).ok());
    }
    const std::string_view message = bytes;
    const size_t cut = input_.ConsumeIntegralInRange<size_t>(0, bytes.size());
    const std::string_view slices[] = {message.substr(0, cut), message.substr(cut)};
    const absl::Status status = stream.session->Receive(slices);
    if (!status.ok()) {
      Require(core::GetErrorDetails(status).has_value());
      Close(stream);
      return;
    }
    Require(stream.session->WantsMessage());
  }

  // Lets the pool finish what it has been given: its one thread takes tasks in order.
  void Drain() {
    for (int round = 0; round < 4; ++round) {
      core::Mutex mutex;
      core::CondVar done;
      bool ran = false;
      SharedEnvironment().pool.Schedule([&] {
        core::MutexLock lock(&mutex);
        ran = true;
        done.NotifyAll();
      });
      core::MutexLock lock(&mutex);
      while (!ran) done.Wait(&mutex);
    }
  }

  std::string Name() { return input_.ConsumeBool() ? "a" : "b/c"; }
  int64_t Small() { return input_.ConsumeIntegralInRange(-1, 6); }
  // True most of the time: what is right.
  bool Right() { return input_.ConsumeIntegral<uint8_t>() < 240; }

  v1::UpdateRequest Message() {
    v1::UpdateRequest message;
    const int kind = input_.ConsumeIntegralInRange(0, 7);
    if (kind == 0 || !Right()) FillHello(*message.mutable_hello());
    if (kind == 1 || !Right()) FillOpen(*message.mutable_open());
    if (kind == 2 || kind >= 5) FillHeader(*message.mutable_header());
    if (kind == 3 || kind >= 5) FillRows(*message.mutable_rows());
    if (kind == 4 || kind >= 6) message.mutable_end()->set_rows(Right() ? rows_ : Small());
    return message;
  }

  void FillHello(v1::Hello& hello) {
    hello.set_client_id(std::string(Right() ? 16 : 3, input_.ConsumeBool() ? 'x' : 'y'));
    hello.set_stream(input_.ConsumeIntegral<uint8_t>());
  }

  void FillOpen(v1::Open& open) {
    open.set_factor(Right() ? Name() : input_.ConsumeRandomLengthString());
    open.set_tower(Right() ? input_.ConsumeBool() : static_cast<int>(Small()));
    open.set_from(Right() ? 0 : Small());
    open.set_through(Small() + 1);
    open.set_take_over(input_.ConsumeBool());
  }

  void FillHeader(v1::BatchHeader& header) {
    const bool b = input_.ConsumeBool();
    const auto factor = registry_->Find(b ? "b/c" : "a");
    rows_ = Right() ? input_.ConsumeIntegralInRange(1, 3) : input_.ConsumeIntegral<int64_t>();
    header.set_factor(Right() ? (*factor)->name() : input_.ConsumeRandomLengthString());
    const core::Progress progress = (*factor)->GetProgress(0, 1);
    header.set_incarnation(Right() ? progress.incarnation : 1);
    header.set_step(Right() ? progress.next + input_.ConsumeBool()
                            : input_.ConsumeIntegral<int64_t>());
    header.set_tower(b && input_.ConsumeBool());
    header.set_rows(rows_);
    const bool contribution = !b && input_.ConsumeBool();
    if (contribution) header.set_form(v1::BATCH_FORM_CONTRIBUTION);
    if (!Right()) header.set_examples(input_.ConsumeFloatingPoint<double>());
    if (!Right()) header.set_form(static_cast<v1::BatchForm>(Small()));
    if (Right()) header.set_decay(Right() ? 0.5 : input_.ConsumeFloatingPoint<double>());
    if (!Right()) header.set_weight(input_.ConsumeFloatingPoint<double>());
    if (!Right()) header.set_gradient_scale(input_.ConsumeFloatingPoint<double>());
    header.set_digest(std::string(Right() ? 16 : 15, Right() ? 'd' : 'e'));
    row_bytes_ = 0;
    if (contribution) return AddTensor(header, v1::TENSOR_ROLE_CONTRIBUTION, 0, 1);
    AddTensor(header, v1::TENSOR_ROLE_INPUTS, 0, 2);
    for (int source = 0; source <= b; ++source) {
      AddTensor(header, v1::TENSOR_ROLE_OUTPUTS_GRADS, source, 1);
    }
    if (input_.ConsumeBool()) AddTensor(header, v1::TENSOR_ROLE_ROW_WEIGHTS, 0, 0);
  }

  // `width` 0: one number per row.
  void AddTensor(v1::BatchHeader& header, v1::TensorRole role, int source, int64_t width) {
    v1::TensorSpec& tensor = *header.add_tensors();
    tensor.set_role(Right() ? role : static_cast<v1::TensorRole>(Small()));
    tensor.set_source(Right() ? source : static_cast<int>(Small()));
    tensor.set_dtype(Right() ? v1::DATA_TYPE_FLOAT16 : static_cast<v1::DataType>(Small()));
    tensor.add_shape(Right() ? rows_ : input_.ConsumeIntegral<int64_t>());
    if (width > 0) tensor.add_shape(Right() ? width : input_.ConsumeIntegral<int64_t>());
    constexpr int kBytes[] = {0, 4, 8, 2, 2};
    const int type = tensor.dtype();
    row_bytes_ += std::max<int64_t>(width, 1) * (type >= 0 && type <= 4 ? kBytes[type] : 0);
  }

  void FillRows(v1::BatchRows& rows) {
    rows.set_first_row(Right() ? 0 : Small());
    rows.set_row_count(Right() ? rows_ : Small());
    std::string data = input_.ConsumeRandomLengthString(256);
    if (Right()) data.resize(static_cast<size_t>(std::clamp<int64_t>(rows_, 0, 8)) * row_bytes_);
    rows.set_crc32c(Right() ? core::Crc32c(0, std::as_bytes(std::span(data))) : 0);
    if (input_.ConsumeIntegral<uint8_t>() < 64) Share(data, *rows.mutable_shared());
    if (!rows.has_shared() || !Right()) rows.set_data(std::move(data));
  }

  // Puts the bytes where the session may read them, at either end or in between.
  void Share(const std::string& data, v1::SharedBytes& shared) {
    const Environment& environment = SharedEnvironment();
    const int64_t size = std::ssize(data);
    const int64_t offset = input_.ConsumeIntegralInRange<int64_t>(0, kSharedBytes - size);
    Require(pwrite(environment.memory, data.data(), data.size(), offset) == size);
    shared.set_region(Right() ? environment.token : input_.ConsumeRandomLengthString(20));
    shared.set_offset(Right() ? offset : input_.ConsumeIntegral<int64_t>());
    shared.set_size(Right() ? size : input_.ConsumeIntegral<int64_t>());
  }

  FuzzedDataProvider& input_;
  std::unique_ptr<core::FactorRegistry> registry_ = std::make_unique<core::FactorRegistry>(
      core::RegistryOptions{.backend = &SharedEnvironment().backend,
                            .pool = &SharedEnvironment().pool,
                            .state_budget = kBudget,
                            .batch_budget = kBudget,
                            .window = 3,
                            .epoch = 1,
                            .first_incarnation = 10});
  SessionTable sessions_{2};
  Stream streams_[2];
  int64_t rows_ = 1;  // of the last header
  int64_t row_bytes_ = 6;
};

}  // namespace
}  // namespace fisherd::server

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const google::protobuf::LogSilencer names_that_are_not_utf8;
  FuzzedDataProvider input(data, size);
  fisherd::server::Fuzz(input).Run();
  return 0;
}
