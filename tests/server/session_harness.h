// A trainer at a Session: builds messages, sends them in pieces, takes answers.

#ifndef FISHERD_TESTS_SERVER_SESSION_HARNESS_H_
#define FISHERD_TESTS_SERVER_SESSION_HARNESS_H_

#include <gmock/gmock.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/batch_reader.h"
#include "google/rpc/error_details.pb.h"
#include "server/session.h"
#include "server/session_table.h"
#include "server/status.h"
#include "tests/core/factor_harness.h"

namespace fisherd::server {

using core::Floats;

inline google::rpc::ErrorInfo InfoOf(const google::rpc::Status& status) {
  google::rpc::ErrorInfo info;
  EXPECT_GE(status.details_size(), 1) << status.DebugString();
  if (status.details_size() > 0) {
    EXPECT_TRUE(status.details(0).UnpackTo(&info));
  }
  return info;
}

// A refusal as SPEC §6 wants it; `message` is a part of its message.
inline void ExpectRefusal(const v1::Refused& refused, grpc::StatusCode code,
                          std::string_view reason, const std::string& message,
                          const std::string& field) {
  EXPECT_EQ(refused.status().code(), code) << refused.DebugString();
  EXPECT_THAT(refused.status().message(), ::testing::HasSubstr(message));
  EXPECT_THAT(refused.status().message(),
              ::testing::AllOf(::testing::HasSubstr("factor \"" + refused.factor() + "\""),
                               ::testing::HasSubstr("tower " + std::to_string(refused.tower()))));
  const google::rpc::ErrorInfo info = InfoOf(refused.status());
  EXPECT_EQ(info.reason(), reason);
  EXPECT_EQ(info.domain(), kErrorDomain);
  const auto& metadata = info.metadata();
  EXPECT_EQ(metadata.at("factor"), refused.factor());
  EXPECT_EQ(metadata.at("tower"), std::to_string(refused.tower()));
  EXPECT_EQ(metadata.contains("step") ? metadata.at("step") : "0", std::to_string(refused.step()));
  EXPECT_EQ(metadata.contains("field") ? metadata.at("field") : "", field);
}

inline std::string BytesOf(const Floats& elements) {
  std::string bytes(elements.size() * sizeof(float), '\0');
  std::memcpy(bytes.data(), elements.data(), bytes.size());
  return bytes;
}

inline v1::UpdateRequest HelloMessage(int client, uint64_t stream = 1) {
  v1::UpdateRequest message;
  std::string id(16, '\0');
  id[0] = static_cast<char>(client);
  message.mutable_hello()->set_client_id(id);
  message.mutable_hello()->set_stream(stream);
  return message;
}

inline v1::UpdateRequest OpenMessage(const std::string& factor, int tower = 0, int64_t from = 0,
                                     bool take_over = false) {
  v1::UpdateRequest message;
  message.mutable_open()->set_factor(factor);
  message.mutable_open()->set_tower(tower);
  message.mutable_open()->set_from(from);
  message.mutable_open()->set_take_over(take_over);
  return message;
}

inline void SetRows(v1::UpdateRequest& message, int64_t first, int64_t count, std::string data) {
  v1::BatchRows& rows = *message.mutable_rows();
  rows.set_first_row(first);
  rows.set_row_count(count);
  rows.set_crc32c(core::Crc32c(0, std::as_bytes(std::span(data))));
  rows.set_data(std::move(data));
}

// The header of a FLOAT32 batch of a [inputs, outputs] layer.
inline v1::UpdateRequest HeaderMessage(const std::string& factor, uint64_t incarnation,
                                       int64_t step, int64_t rows, int tower = 0,
                                       int64_t inputs = 2, int64_t outputs = 2) {
  v1::UpdateRequest message;
  v1::BatchHeader& header = *message.mutable_header();
  header.set_factor(factor);
  header.set_incarnation(incarnation);
  header.set_step(step);
  header.set_tower(tower);
  header.set_rows(rows);
  header.set_decay(0.5);
  std::string digest(16, '\0');
  digest[0] = static_cast<char>(step);
  digest[1] = static_cast<char>(tower);
  header.set_digest(digest);
  for (const bool gradients : {false, true}) {
    v1::TensorSpec& tensor = *header.add_tensors();
    tensor.set_role(gradients ? v1::TENSOR_ROLE_OUTPUTS_GRADS : v1::TENSOR_ROLE_INPUTS);
    tensor.set_dtype(v1::DATA_TYPE_FLOAT32);
    tensor.add_shape(rows);
    tensor.add_shape(gradients ? outputs : inputs);
  }
  return message;
}

// A whole batch in one message.
inline v1::UpdateRequest BatchMessage(v1::UpdateRequest message, const Floats& elements) {
  SetRows(message, 0, message.header().rows(), BytesOf(elements));
  message.mutable_end()->set_rows(message.header().rows());
  return message;
}

class Trainer {
 public:
  Trainer(core::FactorRegistry& registry, SessionTable& table,
          const SharedRegions* regions = nullptr)
      : session_(std::make_shared<Session>(
            registry, table, [wakes = wakes_] { wakes->Add(); }, regions)) {
    EXPECT_TRUE(table.Add(session_).ok());
  }
  ~Trainer() { session_->Close(absl::OkStatus()); }

  // Pieces of `piece_bytes`, in memory of their own that goes with the call.
  absl::Status Send(const std::string& bytes, size_t piece_bytes = 1 << 20) {
    std::vector<std::string> pieces;
    for (size_t at = 0; at < bytes.size(); at += piece_bytes) {
      pieces.push_back(bytes.substr(at, piece_bytes));
    }
    return session_->Receive(std::vector<std::string_view>(pieces.begin(), pieces.end()));
  }
  absl::Status Send(const v1::UpdateRequest& message) { return Send(message.SerializeAsString()); }

  // Waits for it. A session that has been closed gives an empty one.
  v1::UpdateResponse Answer() {
    for (;;) {
      const int wakes = wakes_->count();
      if (auto answer = session_->NextAnswer()) return *answer;
      if (session_->closed().has_value()) return {};
      wakes_->AwaitMoreThan(wakes);
    }
  }
  // Acknowledgements are cumulative: the one, if need be of several, that tells `next`.
  v1::Progress AwaitNext(int64_t next) {
    for (;;) {
      const v1::UpdateResponse answer = Answer();
      EXPECT_TRUE(answer.has_ack()) << answer.DebugString();
      if (!answer.has_ack() || answer.ack().progress().next() >= next) {
        return answer.ack().progress();
      }
    }
  }
  v1::Progress Open(const std::string& factor, int tower = 0) {
    EXPECT_TRUE(Send(OpenMessage(factor, tower)).ok());
    const v1::UpdateResponse answer = Answer();
    EXPECT_TRUE(answer.has_opened()) << answer.DebugString();
    return answer.opened().progress();
  }
  v1::Refused Refusal() {
    const v1::UpdateResponse answer = Answer();
    EXPECT_TRUE(answer.has_refused()) << answer.DebugString();
    return answer.refused();
  }
  bool IsQuiet() { return !session_->NextAnswer().has_value(); }

  Session& session() { return *session_; }
  std::shared_ptr<Session> shared() { return session_; }
  int wakes() const { return wakes_->count(); }

 private:
  class Wakes {
   public:
    void Add() {
      core::MutexLock lock(&mutex_);
      ++count_;
      changed_.NotifyAll();
    }
    int count() const {
      core::MutexLock lock(&mutex_);
      return count_;
    }
    void AwaitMoreThan(int count) {
      core::MutexLock lock(&mutex_);
      while (count_ <= count) changed_.Wait(&mutex_);
    }

   private:
    mutable core::Mutex mutex_;
    core::CondVar changed_;
    int count_ ABSL_GUARDED_BY(mutex_) = 0;
  };

  const std::shared_ptr<Wakes> wakes_ = std::make_shared<Wakes>();
  const std::shared_ptr<Session> session_;
};

class SessionTest : public core::FactorTest {
 protected:
  using core::FactorTest::FactorTest;

  std::unique_ptr<Trainer> Join(int client, uint64_t stream = 1) {
    auto trainer = std::make_unique<Trainer>(*registry_, table_);
    EXPECT_TRUE(trainer->Send(HelloMessage(client, stream)).ok());
    return trainer;
  }
  uint64_t Incarnation(const std::string& factor) {
    return (*registry_->Find(factor))->Describe().version.incarnation;
  }
  v1::UpdateRequest Header(const std::string& factor, int64_t step, int tower = 0,
                           int64_t rows = 2) {
    return HeaderMessage(factor, Incarnation(factor), step, rows, tower);
  }
  v1::UpdateRequest GoldenBatch(const std::string& factor, int64_t step, int tower = 0) {
    return BatchMessage(Header(factor, step, tower), golden_batch_);
  }

  SessionTable table_{8};
};

}  // namespace fisherd::server

#endif  // FISHERD_TESTS_SERVER_SESSION_HARNESS_H_
