// Tests of update_connection.cc: streams that are cut, servers that come back, and what never does.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "fisherd/client.h"
#include "fisherd/status.h"
#include "tests/client/fake_server.h"

namespace fisherd {
namespace {

constexpr StepOptions kOptions = {.decay = 0.9};

UpdateStreamOptions Patient() {
  return {.form = v1::BATCH_FORM_RAW,
          .first_reconnect_delay = absl::Milliseconds(1),
          .max_reconnect_delay = absl::Milliseconds(4)};
}

grpc::Status Cut() { return Error(grpc::StatusCode::UNAVAILABLE, "", "cut", "f", /*retry_ms=*/1); }

class UpdateConnectionTest : public testing::Test {
 protected:
  using Answer = std::optional<grpc::Status>;
  using Call = FakeServer::UpdateCall;

  // Answers opens with `progress`, and ends the stream after message number `cut_after`, from 0.
  void Script(Shared<v1::Progress>& progress, size_t cut_after) {
    server_.on_update = [this, &progress, cut_after](const v1::UpdateRequest& request, Call& call) {
      if (request.has_open()) {
        v1::UpdateResponse opened;
        v1::Progress& answer = *opened.mutable_opened()->mutable_progress();
        answer = progress.Get();
        answer.set_factor(request.open().factor());
        answer.set_tower(request.open().tower());
        call.Write(opened);
      }
      return server_.messages() == cut_after + 1 ? Answer(Cut()) : Answer();
    };
  }

  UpdateWriter Open(UpdateStream& stream, std::string_view factor = "f") {
    absl::StatusOr<UpdateWriter> writer = stream.Open(factor, 0, {.take_over = true});
    EXPECT_TRUE(writer.ok()) << writer.status();
    return *std::move(writer);
  }

  Batch batch() const { return {.inputs = a_, .outputs_grads = {g_}}; }

  const Matrix<float> a_ = Matrix<float>::Random(6, 3);
  const Matrix<float> g_ = Matrix<float>::Random(6, 2);
  FakeServer server_;
  Client client_ = server_.Connect();
};

TEST_F(UpdateConnectionTest, ACutStreamIsOpenedAgainAndTheSameBytesAreSent) {
  Shared<v1::Progress> progress(ProgressAt(1));
  Script(progress, 3);  // hello, open, 1, 2
  UpdateStream stream = client_.OpenUpdates(Patient());
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 2);
  const v1::Hello again = server_.Message(4).hello();
  EXPECT_EQ(again.client_id(), server_.Message(0).hello().client_id());
  EXPECT_GT(again.stream(), server_.Message(0).hello().stream());
  const v1::Open open = server_.Message(5).open();
  EXPECT_EQ(open.from(), 1);
  EXPECT_EQ(open.through(), 2);
  EXPECT_FALSE(open.take_over()) << "who has taken it since shall keep it";
  for (size_t i : {2, 3}) {
    EXPECT_EQ(server_.Message(i + 4).SerializeAsString(), server_.Message(i).SerializeAsString());
  }
  server_.Send(AckAt(3));
  EXPECT_TRUE(writer.WaitEnded(2).ok()) << "which went through the cut";
  EXPECT_EQ(writer.stats().reconnects, 1);
  EXPECT_EQ(writer.stats().resent_batches, 2);
  EXPECT_TRUE(stream.status().ok());
}

TEST_F(UpdateConnectionTest, WhatIsWrittenDuringAnOutageIsSentAfterIt) {
  Shared<v1::Progress> progress(ProgressAt(1));
  Script(progress, 2);
  UpdateStream stream = client_.OpenUpdates(Patient());
  UpdateWriter writer = Open(stream);
  ASSERT_TRUE(writer.Write(batch(), kOptions).ok());  // cut
  ASSERT_TRUE(writer.Write(batch(), kOptions).ok());
  EXPECT_TRUE(stream.Close().ok());
  std::set<int64_t> steps;
  for (size_t i = 5; i < server_.messages(); ++i) steps.insert(server_.Message(i).header().step());
  EXPECT_EQ(steps, (std::set<int64_t>{1, 2}));
}

TEST_F(UpdateConnectionTest, ANewEpochIsSentWhatItHasLost) {
  Shared<v1::Progress> progress(ProgressAt(1));
  Script(progress, 3);
  UpdateStream stream = client_.OpenUpdates(Patient());
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  v1::UpdateResponse ack = AckAt(2);
  ack.mutable_ack()->mutable_progress()->set_durable(0);
  server_.Send(ack);
  ASSERT_TRUE(writer.WaitEnded(1).ok());
  v1::Progress back = ProgressAt(1);
  back.set_epoch(4);
  progress.Set(back);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 2);  // cut
  EXPECT_EQ(server_.Message(6).SerializeAsString(), server_.Message(2).SerializeAsString());
  EXPECT_EQ(server_.Message(7).SerializeAsString(), server_.Message(3).SerializeAsString());
  server_.Send(AckAt(3));  // of the old epoch
  EXPECT_EQ(writer.WaitEnded(1, absl::Milliseconds(20)).code(),
            absl::StatusCode::kDeadlineExceeded);
  ack = AckAt(3);
  ack.mutable_ack()->mutable_progress()->set_epoch(4);
  server_.Send(ack);
  EXPECT_TRUE(writer.WaitDurable(2).ok());
}

TEST_F(UpdateConnectionTest, AnotherIncarnationIsTheEndOfAWriterNotOfTheStream) {
  Shared<v1::Progress> progress(ProgressAt(1));
  Script(progress, 3);
  UpdateStream stream = client_.OpenUpdates(Patient());
  UpdateWriter writer = Open(stream);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 1);
  v1::Progress other = ProgressAt(1);
  other.set_incarnation(8);
  progress.Set(other);
  ASSERT_EQ(*writer.Write(batch(), kOptions), 2);  // cut
  EXPECT_EQ(ErrorReason(writer.WaitEnded(1)), "OLD_INCARNATION");
  EXPECT_EQ(ErrorReason(writer.Write(batch(), kOptions).status()), "OLD_INCARNATION");
  UpdateWriter anew = Open(stream);
  EXPECT_EQ(*anew.Write(batch(), kOptions), 1);
}

TEST_F(UpdateConnectionTest, AnIncarnationThatEndedBeforeOpenedWasTheWritersBefore) {
  Shared<int> opens(0);
  server_.on_update = [&](const v1::UpdateRequest& request, Call& call) {
    if (!request.has_open()) return Answer();
    opens.Set(opens.Get() + 1);
    call.Write(opens.Get() > 1 ? OpenedAt(1)
                               : RefusedAt(0, grpc::StatusCode::FAILED_PRECONDITION,
                                           "OLD_INCARNATION", "has been deleted"));
    return Answer();
  };
  UpdateStream stream = client_.OpenUpdates(Patient());
  EXPECT_EQ(Open(stream).next_step(), 1);
  EXPECT_EQ(opens.Get(), 2);
}

TEST_F(UpdateConnectionTest, AFactorThatIsGoneEndsItsWriterAndTheOthersGoOn) {
  Shared<bool> lost(false);
  server_.on_update = [&](const v1::UpdateRequest& request, Call& call) {
    if (request.has_open()) {
      v1::UpdateResponse answer = OpenedAt(1);
      answer.mutable_opened()->mutable_progress()->set_factor(request.open().factor());
      if (lost.Get() && request.open().factor() == "f") {
        answer = RefusedAt(0, grpc::StatusCode::NOT_FOUND, "FACTOR_NOT_FOUND", "there is none");
      }
      call.Write(answer);
    }
    if (!request.has_end() || lost.Get()) return Answer();
    lost.Set(true);
    return Answer(Cut());
  };
  UpdateStream stream = client_.OpenUpdates(Patient());
  UpdateWriter f = Open(stream, "f");
  UpdateWriter g = Open(stream, "g");
  ASSERT_EQ(*f.Write(batch(), kOptions), 1);
  EXPECT_EQ(ErrorReason(f.WaitEnded(1)), "FACTOR_NOT_FOUND");
  ASSERT_EQ(*g.Write(batch(), kOptions), 1);
  v1::UpdateResponse ack = AckAt(2);
  ack.mutable_ack()->mutable_progress()->set_factor("g");
  server_.AwaitBatches(2);
  server_.Send(ack);
  EXPECT_TRUE(g.WaitEnded(1).ok());
}

TEST_F(UpdateConnectionTest, TooManyStreamsIsTriedAgainAfterTheDelay) {
  server_.on_update = [&](const v1::UpdateRequest& request, Call& call) {
    if (server_.messages() <= 2) {
      return Answer(Error(grpc::StatusCode::RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", "full", "", 5));
    }
    if (request.has_open()) call.Write(OpenedAt(1));
    return Answer();
  };
  UpdateStream stream = client_.OpenUpdates(Patient());
  EXPECT_EQ(Open(stream).next_step(), 1);
}

TEST_F(UpdateConnectionTest, WhatCannotPassEndsTheStream) {
  for (const grpc::StatusCode code :
       {grpc::StatusCode::ABORTED, grpc::StatusCode::UNAUTHENTICATED,
        grpc::StatusCode::PERMISSION_DENIED, grpc::StatusCode::UNIMPLEMENTED,
        grpc::StatusCode::INVALID_ARGUMENT}) {
    server_.on_update = [code](const v1::UpdateRequest&, Call&) {
      return Answer(Error(code, "WHY", "no"));
    };
    UpdateStream stream = client_.OpenUpdates(Patient());
    EXPECT_EQ(static_cast<int>(stream.Open("f", 0).status().code()), static_cast<int>(code));
    EXPECT_EQ(ErrorReason(stream.status()), "WHY");
  }
  server_.on_update = [](const v1::UpdateRequest&, Call&) {
    return Answer(grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "message too large"));
  };
  UpdateStream stream = client_.OpenUpdates(Patient());
  EXPECT_EQ(stream.Open("f", 0).status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(UpdateConnectionTest, AServerThatEndsTheStreamWithoutErrorIsUnavailable) {
  server_.on_update = [](const v1::UpdateRequest&, Call&) { return Answer(grpc::Status::OK); };
  UpdateStreamOptions options = Patient();
  options.reconnect_timeout = absl::Milliseconds(20);
  UpdateStream stream = client_.OpenUpdates(options);
  EXPECT_EQ(stream.Open("f", 0).status().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(stream.status().code(), absl::StatusCode::kUnavailable);
}

TEST_F(UpdateConnectionTest, AStreamThatIsCutDoesNotCloseANewerOne) {
  Shared<v1::Progress> progress(ProgressAt(1));
  Script(progress, 3);
  UpdateStream older = client_.OpenUpdates(Patient());
  UpdateWriter writer = Open(older);
  UpdateStream newer = client_.OpenUpdates(Patient());
  server_.Message(2);
  ASSERT_TRUE(writer.Write(batch(), kOptions).ok());  // cut
  EXPECT_EQ(ErrorReason(writer.WaitEnded(1)), "STREAM_SUPERSEDED");
  EXPECT_EQ(older.status().code(), absl::StatusCode::kAborted);
  EXPECT_TRUE(newer.status().ok());
}

TEST_F(UpdateConnectionTest, CloseGivesUpOnAServerThatStaysAway) {
  server_.on_update = [](const v1::UpdateRequest& request, Call& call) {
    if (request.has_header()) return Answer(Cut());
    if (request.has_open()) call.Write(OpenedAt(1));
    return Answer();
  };
  UpdateStream stream = client_.OpenUpdates(Patient());
  UpdateWriter writer = Open(stream);
  ASSERT_TRUE(writer.Write(batch(), kOptions).ok());
  EXPECT_FALSE(stream.Close(absl::Milliseconds(50)).ok());
  EXPECT_EQ(writer.WaitEnded(1).code(), absl::StatusCode::kCancelled);
}

TEST(UpdateReconnectionTest, AServerThatComesBackIsFound) {
  const auto answer = [](const v1::UpdateRequest& request, FakeServer::UpdateCall& call) {
    if (request.has_open()) call.Write(OpenedAt(1));
    if (request.has_end()) call.Write(AckAt(2));
    return std::optional<grpc::Status>();
  };
  auto server = std::make_unique<FakeServer>();
  const std::string address = server->address();
  server->on_update = answer;
  Client client = server->Connect();
  UpdateStream stream = client.OpenUpdates(Patient());
  absl::StatusOr<UpdateWriter> writer = stream.Open("f", 0);
  ASSERT_TRUE(writer.ok()) << writer.status();
  server.reset();
  const Matrix<float> a = Matrix<float>::Random(6, 3);
  ASSERT_EQ(*writer->Write({.inputs = a}, kOptions), 1) << "it is kept";
  server = std::make_unique<FakeServer>(address);
  server->on_update = answer;
  EXPECT_TRUE(writer->WaitEnded(1).ok());
}

// ---- Cuts, holds and crashes anywhere

// What a server does to one factor of one tower. A step commits with its batch.
class CarelessServer {
 public:
  static constexpr int64_t kLast = 40;

  explicit CarelessServer(int seed) : random_(seed) {}

  std::optional<grpc::Status> OnMessage(const v1::UpdateRequest& request,
                                        FakeServer::UpdateCall& call) {
    std::lock_guard lock(mutex_);
    if (random_() % 24 == 0) return Cut();
    if (request.has_hello()) {
      arriving_.clear();
      if (random_() % 4 == 0) Crash();
    }
    if (request.has_open()) {
      v1::UpdateResponse opened;
      *opened.mutable_opened()->mutable_progress() = Progress(request.open().factor());
      call.Write(opened);
    }
    if (request.has_header()) header_ = request.header();
    if (request.has_rows()) arriving_ += request.rows().data();
    if (request.has_end()) EndBatch(call);
    return std::nullopt;
  }

  // Of a factor: what each step was counted with.
  std::map<int64_t, std::string> counted(const std::string& factor) {
    std::lock_guard lock(mutex_);
    return factors_[factor].counted;
  }

 private:
  struct Factor {
    int64_t next = 1;
    int64_t durable = 0;
    std::map<int64_t, std::string> counted;
    std::map<int64_t, std::string> digests;  // ever seen
  };

  void EndBatch(FakeServer::UpdateCall& call) {
    const std::string data = std::exchange(arriving_, "");
    Factor& factor = factors_[header_.factor()];
    const int64_t step = header_.step();
    const auto [seen, first] = factor.digests.emplace(step, header_.digest());
    EXPECT_EQ(seen->second, header_.digest()) << "the same step with other bytes";
    v1::UpdateResponse answer;
    if (step == factor.next && random_() % 6 == 0) {
      answer = HoldAt(step);
      answer.mutable_hold()->set_factor(header_.factor());
      call.Write(answer);
      answer.Clear();
    } else if (step == factor.next) {
      factor.counted[step] = data;
      ++factor.next;
      if (step == kLast || random_() % 3 == 0) factor.durable = step;
    } else if (step > factor.next) {
      // After a hold. Its own hold follows, as a server would have it.
      answer = HoldAt(step);
      answer.mutable_hold()->set_factor(header_.factor());
      call.Write(answer);
      answer.Clear();
    }
    *answer.mutable_ack()->mutable_progress() = Progress(header_.factor());
    call.Write(answer);
  }

  v1::Progress Progress(const std::string& name) {
    const Factor& factor = factors_[name];
    v1::Progress progress = ProgressAt(factor.next);
    progress.set_factor(name);
    progress.set_epoch(epoch_);
    progress.set_durable(factor.durable);
    progress.set_window(4);
    progress.set_open_through(factor.next + 3);
    return progress;
  }

  void Crash() {
    ++epoch_;
    for (auto& [name, factor] : factors_) {
      factor.next = factor.durable + 1;
      factor.counted.erase(factor.counted.upper_bound(factor.durable), factor.counted.end());
    }
  }

  std::mutex mutex_;
  std::mt19937 random_;
  uint64_t epoch_ = 3;
  std::map<std::string, Factor> factors_;
  v1::BatchHeader header_;
  std::string arriving_;
};

class AnyCutTest : public testing::TestWithParam<int> {};

TEST_P(AnyCutTest, EveryBatchIsCountedWithItsOwnBytes) {
  CarelessServer careless(GetParam());
  FakeServer server;
  server.on_update = [&](const v1::UpdateRequest& request, FakeServer::UpdateCall& call) {
    return careless.OnMessage(request, call);
  };
  Client client = server.Connect();
  UpdateStreamOptions options = Patient();
  options.max_frame = 40;
  UpdateStream stream = client.OpenUpdates(options);
  const auto matrix = [](int factor, int64_t step) {
    return Matrix<float>(Matrix<float>::Constant(3, 5, 1000.0f * factor + step));
  };
  std::vector<std::thread> threads;
  for (int factor = 0; factor < 2; ++factor) {
    threads.emplace_back([&, factor] {
      absl::StatusOr<UpdateWriter> writer = stream.Open(absl::StrCat("f", factor), 0);
      ASSERT_TRUE(writer.ok()) << writer.status();
      for (int64_t step = 1; step <= CarelessServer::kLast; ++step) {
        const Matrix<float> a = matrix(factor, step);
        const absl::StatusOr<int64_t> written = writer->Write({.inputs = a}, kOptions);
        ASSERT_TRUE(written.ok()) << written.status();
        ASSERT_EQ(*written, step);
      }
      for (int64_t step = 1; step <= CarelessServer::kLast; ++step) {
        ASSERT_TRUE(writer->WaitDurable(step).ok());
      }
      EXPECT_GT(writer->stats().reconnects, 0);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int factor = 0; factor < 2; ++factor) {
    const auto counted = careless.counted(absl::StrCat("f", factor));
    ASSERT_EQ(counted.size(), static_cast<size_t>(CarelessServer::kLast));
    for (const auto& [step, data] : counted) {
      const Matrix<float> a = matrix(factor, step);
      EXPECT_EQ(data, std::string(reinterpret_cast<const char*>(a.data()), a.size() * 4));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, AnyCutTest, testing::Range(0, 10));

}  // namespace
}  // namespace fisherd
