#include "tests/bench/stream/in_process.h"

#include <grpcpp/impl/codegen/proto_utils.h>

#include <algorithm>
#include <condition_variable>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "client/cpp/crc32c.h"
#include "core/backend_cpu.h"
#include "core/factor_registry.h"
#include "server/session.h"
#include "server/session_table.h"
#include "tests/bench/core/die.h"
#include "tests/bench/core/timing.h"
#include "tests/bench/stream/encoded.h"
#include "tests/bench/stream/trainers.h"

namespace fisherd::bench {
namespace {

constexpr int64_t kBatchBudget = int64_t{2} << 30;
// Encoded at once.
constexpr int64_t kPhaseBytes = int64_t{32} << 20;
constexpr int64_t kMaxPhaseSteps = 256;

int Cores() { return std::max(1u, std::thread::hardware_concurrency()); }

}  // namespace

class InProcess::Impl {
 public:
  Impl(int factors, int trainers, int64_t batch_bytes)
      : factors_(factors),
        round_bytes_(batch_bytes * factors * trainers),
        phase_steps_(std::clamp<int64_t>(kPhaseBytes / round_bytes_, 1, kMaxPhaseSteps)),
        half_(Matrix<float>::Random(batch_bytes / kRowBytes, kLayerSize)) {
    CreateFactors(trainers);
    for (int tower = 0; tower < trainers; ++tower) sessions_.push_back(NewSession(tower));
    Drain();
  }

  ~Impl() {
    for (const auto& session : sessions_) session->Close(absl::OkStatus());
    pool_ = nullptr;  // before what it runs for
  }

  double Turn(int64_t bytes) {
    double seconds = 0;
    int64_t done = 0;
    for (; done < bytes || done == 0; done += phase_steps_ * round_bytes_) {
      seconds += Phase();
    }
    return done / seconds;
  }

 private:
  // Of one trainer, in the order in which they are sent.
  using Messages = std::vector<std::string>;

  void CreateFactors(int trainers) {
    for (int index = 0; index < factors_; ++index) {
      core::FactorSpec spec;
      spec.kind = core::FullyConnectedDiagonalSpec{kLayerSize, kLayerSize, false};
      spec.towers = trainers;
      spec.window = core::kMaxWindow;
      const auto created = registry_.Create(FactorName(index), spec);
      if (!created.ok()) Die(created.status().ToString());
    }
  }

  std::shared_ptr<server::Session> NewSession(int tower) {
    const auto session = std::make_shared<server::Session>(registry_, table_, [this] {
      const std::lock_guard lock(mutex_);
      ++wakes_;
      woken_.notify_one();
    });
    if (!table_.Add(session).ok()) Die("no session");
    v1::UpdateRequest message;
    std::string id(16, '\0');
    id[0] = static_cast<char>(tower);
    message.mutable_hello()->set_client_id(id);
    message.mutable_hello()->set_stream(1);
    Receive(*session, message.SerializeAsString());
    message.clear_hello();
    for (int index = 0; index < factors_; ++index) {
      message.mutable_open()->set_factor(FactorName(index));
      message.mutable_open()->set_tower(tower);
      Receive(*session, message.SerializeAsString());
    }
    return session;
  }

  static void Receive(server::Session& session, const std::string& message) {
    const std::string_view piece = message;
    if (absl::Status status = session.Receive({&piece, 1}); !status.ok()) Die(status.ToString());
  }

  Messages Encode(int tower) const {
    Messages messages;
    for (int64_t step = next_step_; step < next_step_ + phase_steps_; ++step) {
      for (int index = 0; index < factors_; ++index) {
        const Messages batch = EncodeBytes({.factor = FactorName(index),
                                            .incarnation = incarnations_.at(FactorName(index)),
                                            .step = step,
                                            .tower = tower},
                                           {.inputs = half_, .outputs_grads = {half_}});
        messages.insert(messages.end(), batch.begin(), batch.end());
      }
    }
    return messages;
  }

  // The seconds that it takes to receive and to count phase_steps_ steps of all.
  double Phase() {
    std::vector<Messages> messages;
    for (size_t tower = 0; tower < sessions_.size(); ++tower) messages.push_back(Encode(tower));
    next_step_ += phase_steps_;
    return Seconds([&] {
      const size_t threads = std::min<size_t>(Cores(), sessions_.size());
      std::vector<std::jthread> others;
      for (size_t thread = 1; thread < threads; ++thread) {
        others.emplace_back([&, thread] { ReceiveAll(messages, thread, threads); });
      }
      ReceiveAll(messages, 0, threads);
      others.clear();
      AwaitSteps();
    });
  }

  // Every `threads`th trainer's messages, one of each in turn.
  void ReceiveAll(const std::vector<Messages>& messages, size_t first, size_t threads) {
    for (size_t message = 0; message < messages[0].size(); ++message) {
      for (size_t tower = first; tower < sessions_.size(); tower += threads) {
        Receive(*sessions_[tower], messages[tower][message]);
      }
    }
  }

  void AwaitSteps() {
    while (true) {
      int64_t wakes;
      {
        const std::lock_guard lock(mutex_);
        wakes = wakes_;
      }
      Drain();
      if (std::ranges::all_of(next_, [&](const auto& e) { return e.second == next_step_; })) return;
      std::unique_lock lock(mutex_);
      woken_.wait(lock, [&] { return wakes_ != wakes; });
    }
  }

  // Takes all answers; what they say of a factor is the same for every tower.
  void Drain() {
    for (const auto& session : sessions_) {
      while (const auto answer = session->NextAnswer()) {
        if (answer->has_hold() || answer->has_refused()) Die(answer->ShortDebugString());
        const v1::Progress& progress =
            answer->has_opened() ? answer->opened().progress() : answer->ack().progress();
        incarnations_[progress.factor()] = progress.incarnation();
        next_[progress.factor()] = progress.next();
      }
    }
  }

  const int factors_;
  const int64_t round_bytes_;  // a step of every factor
  const int64_t phase_steps_;
  const Matrix<float> half_;  // inputs, and gradients
  std::unique_ptr<core::ComputePool> pool_ = std::make_unique<core::ComputePool>(Cores());
  core::BackendCpu backend_{pool_.get()};
  core::FactorRegistry registry_{{.backend = &backend_,
                                  .pool = pool_.get(),
                                  .state_budget = kBatchBudget,
                                  .batch_budget = kBatchBudget,
                                  .epoch = 1}};
  server::SessionTable table_{1024};
  std::vector<std::shared_ptr<server::Session>> sessions_;  // by tower
  int64_t next_step_ = 1;
  std::map<std::string, uint64_t> incarnations_;
  std::map<std::string, int64_t> next_;
  std::mutex mutex_;
  std::condition_variable woken_;
  int64_t wakes_ = 0;
};

InProcess::InProcess(int factors, int trainers, int64_t batch_bytes)
    : impl_(std::make_unique<Impl>(factors, trainers, batch_bytes)) {}
InProcess::~InProcess() = default;
double InProcess::Turn(int64_t bytes) { return impl_->Turn(bytes); }

ClientCosts MeasureClientCosts(int64_t batch_bytes) {
  const Matrix<float> half = Matrix<float>::Random(batch_bytes / kRowBytes, kLayerSize);
  const BatchIdentity identity = {.factor = FactorName(0), .incarnation = 1, .step = 1};
  const auto tensors = RawTensors(identity, {.inputs = half, .outputs_grads = {half}});
  std::string copy(batch_bytes, '\0');
  const auto pool = std::make_shared<BufferPool>(2 * batch_bytes);
  std::shared_ptr<const EncodedBatch> kept;
  const auto rate = [&](const auto& work) {
    return batch_bytes / TimeInTurns({{.turn = TurnOf(work, 1)}}, 3)[0];
  };
  ClientCosts costs{.batch_bytes = batch_bytes};
  costs.copy = rate([&] {
    std::memcpy(copy.data(), half.data(), batch_bytes / 2);
    std::memcpy(copy.data() + batch_bytes / 2, half.data(), batch_bytes / 2);
  });
  volatile size_t use = 0;
  costs.digest = rate([&] { use = BatchDigest({}, tensors->tensors).size(); });
  costs.crc = rate([&] { use = Crc32c(copy); });
  costs.encode = rate([&] {
    kept = nullptr;  // its memory is used again, as the client library does
    kept = *EncodeBatch(identity, *tensors, {.decay = 0.95}, UpdateStreamOptions().max_frame, pool);
  });
  costs.serialize = rate([&] {
    for (const v1::UpdateRequest& message : kept->messages) {
      grpc::ByteBuffer bytes;
      bool own = false;
      if (!grpc::SerializationTraits<v1::UpdateRequest>::Serialize(message, &bytes, &own).ok()) {
        Die("cannot serialize");
      }
    }
  });
  return costs;
}

}  // namespace fisherd::bench
