#include "tests/bench/stream/trainers.h"

#include <grpcpp/grpcpp.h>
#include <grpcpp/support/sync_stream.h>

#include <condition_variable>
#include <cstring>
#include <mutex>
#include <thread>

#include "absl/strings/str_cat.h"
#include "client/cpp/channel.h"
#include "tests/bench/core/die.h"
#include "tests/bench/stream/encoded.h"
#include "tests/bench/stream/raw_server.h"

namespace fisherd::bench {
namespace {

constexpr StepOptions kStep = {.decay = 0.95};

void Check(const absl::Status& status) {
  if (!status.ok()) Die(status.ToString());
}

template <typename T>
T Check(absl::StatusOr<T> result) {
  Check(result.status());
  return *std::move(result);
}

// A writer and a reader, as the client library has them.
class RawTrainer final : public Trainer {
 public:
  RawTrainer(const std::string& address, int factors, int64_t batch_bytes)
      : factors_(factors),
        channel_(OwnChannel(address)),
        method_(kRawMethod, grpc::internal::RpcMethod::BIDI_STREAMING) {
    for (const std::string& message : EncodeOne(batch_bytes)) {
      const grpc::Slice slice(message);
      messages_.emplace_back(&slice, 1);
    }
    stream_.reset(
        grpc::internal::ClientReaderWriterFactory<grpc::ByteBuffer, grpc::ByteBuffer>::Create(
            channel_.get(), method_, &context_));
    const grpc::Slice slice(absl::StrCat(messages_.size()));
    Write(grpc::ByteBuffer(&slice, 1));
    reader_ = std::thread([this] { Read(); });
  }

  ~RawTrainer() override {
    stream_->WritesDone();
    reader_.join();
    stream_->Finish();
  }

  void Push() override {
    for (int factor = 0; factor < factors_; ++factor) {
      for (const grpc::ByteBuffer& message : messages_) Write(message);
    }
    pushed_ += factors_;
  }

  void Await() override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return ended_ || acknowledged_ >= pushed_; });
    if (ended_) Die("the raw server ended the stream");
  }

 private:
  void Write(const grpc::ByteBuffer& message) {
    if (!stream_->Write(message)) Die("the raw server ended the stream");
  }

  void Read() {
    grpc::ByteBuffer answer;
    while (stream_->Read(&answer)) {
      grpc::Slice slice;
      if (!answer.DumpToSingleSlice(&slice).ok() || slice.size() != kRawAnswerBytes) {
        Die("not an answer of the raw server");
      }
      const std::lock_guard lock(mutex_);
      std::memcpy(&acknowledged_, slice.begin(), sizeof acknowledged_);
      changed_.notify_all();
    }
    const std::lock_guard lock(mutex_);
    ended_ = true;
    changed_.notify_all();
  }

  const int factors_;
  std::vector<grpc::ByteBuffer> messages_;  // of one batch
  const std::shared_ptr<grpc::Channel> channel_;
  const grpc::internal::RpcMethod method_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<grpc::ByteBuffer, grpc::ByteBuffer>> stream_;
  int64_t pushed_ = 0;  // batches
  std::mutex mutex_;
  std::condition_variable changed_;
  int64_t acknowledged_ = 0;
  bool ended_ = false;
  std::thread reader_;
};

}  // namespace

std::shared_ptr<grpc::Channel> OwnChannel(const std::string& address) {
  grpc::ChannelArguments arguments = DefaultChannelArguments();
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

std::string FactorName(int index) { return absl::StrCat("factor/", index); }

void CreateFactors(Client& client, int count, const FactorOptions& options) {
  const FullyConnectedDiagonal layer = {.input_size = kLayerSize, .output_size = kLayerSize};
  for (int index = 0; index < count; ++index) {
    Check(client.CreateFactor(FactorName(index), layer, options).status());
  }
}

OurTrainer::OurTrainer(const OurOptions& options)
    : inputs_(Matrix<float>::Random(options.batch_bytes / kRowBytes, kLayerSize)),
      gradients_(Matrix<float>::Random(options.batch_bytes / kRowBytes, kLayerSize)),
      client_(Client::FromChannel(OwnChannel(options.address))),
      stream_(client_.OpenUpdates({.form = v1::BATCH_FORM_RAW})) {
  for (const int factor : options.factors) {
    writers_.push_back(Check(stream_.Open(FactorName(factor), options.tower)));
    first_steps_.push_back(writers_.back().next_step());
  }
}

OurTrainer::~OurTrainer() { stream_.Close(absl::ZeroDuration()).IgnoreError(); }

Batch OurTrainer::batch() const { return {.inputs = inputs_, .outputs_grads = {gradients_}}; }

void OurTrainer::Push() {
  for (UpdateWriter& writer : writers_) Check(writer.Write(batch(), kStep).status());
}

void OurTrainer::Await() {
  for (UpdateWriter& writer : writers_) Check(writer.WaitEnded(writer.next_step() - 1));
}

bool OurTrainer::PushWithin(absl::Duration timeout) {
  for (UpdateWriter& writer : writers_) {
    const absl::Status status = writer.Write(batch(), kStep, timeout).status();
    if (absl::IsDeadlineExceeded(status)) return false;
    Check(status);
  }
  return true;
}

int64_t OurTrainer::ended() const {
  int64_t batches = 0;
  for (size_t i = 0; i < writers_.size(); ++i) {
    batches += writers_[i].progress().next() - first_steps_[i];
  }
  return batches;
}

std::unique_ptr<Trainer> MakeRawTrainer(const std::string& address, int factors,
                                        int64_t batch_bytes) {
  return std::make_unique<RawTrainer>(address, factors, batch_bytes);
}

}  // namespace fisherd::bench
