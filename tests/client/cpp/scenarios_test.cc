// The replay scenarios, client/scenarios: what its README says, over TowerState.

#include <gmock/gmock.h>
#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "client/cpp/errors.h"
#include "client/cpp/tower_state.h"
#include "fisherd/status.h"

namespace fisherd {
namespace {

using google::protobuf::ListValue;
using google::protobuf::Struct;
using google::protobuf::Value;

constexpr char kFolder[] = FISHERD_SOURCE_DIR "/client/scenarios";

std::vector<std::string> Scenarios() {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(kFolder)) {
    if (file.path().extension() == ".json") names.push_back(file.path().stem());
  }
  std::ranges::sort(names);
  return names;
}

Struct Load(const std::string& name) {
  std::ifstream file(absl::StrCat(kFolder, "/", name, ".json"));
  std::stringstream text;
  text << file.rdbuf();
  Struct scenario;
  const auto status = google::protobuf::util::JsonStringToMessage(text.str(), &scenario);
  EXPECT_TRUE(status.ok()) << name << ": " << status.ToString();
  return scenario;
}

template <typename Message>
std::string ToJson(const Message& message) {
  std::string json;
  EXPECT_TRUE(google::protobuf::util::MessageToJsonString(message, &json).ok());
  return json;
}

int64_t ToInt(const Value& value) { return static_cast<int64_t>(value.number_value()); }

Value Of(double number) {
  Value value;
  value.set_number_value(number);
  return value;
}
Value Of(bool flag) {
  Value value;
  value.set_bool_value(flag);
  return value;
}
Value Of(const std::vector<Value>& values) {
  Value list;
  list.mutable_list_value();
  for (const Value& value : values) *list.mutable_list_value()->add_values() = value;
  return list;
}

// A RESULT.
Value Of(const std::optional<absl::Status>& outcome) {
  Value value;
  value.set_null_value(google::protobuf::NULL_VALUE);
  if (!outcome) return value;
  const std::string reason = ErrorReason(*outcome);
  value.set_string_value(reason.empty() ? absl::StatusCodeToString(outcome->code()) : reason);
  return value;
}
Value OfError(const absl::Status& error) {
  return Of(error.ok() ? std::nullopt : std::optional(error));
}

absl::StatusCode CodeOf(const std::string& name) {
  for (int code = 1; code <= 16; ++code) {
    if (absl::StatusCodeToString(static_cast<absl::StatusCode>(code)) == name) {
      return static_cast<absl::StatusCode>(code);
    }
  }
  ADD_FAILURE() << "no such code: " << name;
  return absl::StatusCode::kUnknown;
}

v1::Progress ProgressOf(const Struct& given) {
  Struct fields = given;
  const int64_t next = ToInt(fields.fields().at("next"));
  const std::pair<const char*, int64_t> defaults[] = {
      {"incarnation", 7},         {"epoch", 3},  {"towers", 1},  {"durable", next - 1},
      {"open_through", next - 1}, {"window", 4}, {"first", next}};
  for (const auto& [name, value] : defaults) {
    fields.mutable_fields()->insert({name, Of(static_cast<double>(value))});
  }
  v1::Progress progress;
  const auto status = google::protobuf::util::JsonStringToMessage(ToJson(fields), &progress);
  EXPECT_TRUE(status.ok()) << status.ToString();
  progress.set_factor("f");
  return progress;
}

class ScenarioTest : public testing::TestWithParam<std::string> {
 protected:
  void Play(const std::string& kind, const Value& value) {
    const auto& fields = value.struct_value().fields();
    if (kind == "opened") {
      tower_->OnOpened(ProgressOf(value.struct_value()));
    } else if (kind == "ack") {
      tower_->OnAck(ProgressOf(value.struct_value()));
    } else if (kind == "hold") {
      tower_->OnHold(ToInt(value));
    } else if (kind == "refused") {
      tower_->OnRefused(
          ToInt(fields.at("step")),
          MakeError(CodeOf(fields.at("code").string_value()), fields.at("reason").string_value(),
                    fields.at("message").string_value()));
    } else if (kind == "cut") {
      tower_->OnCut();
    } else if (kind == "push") {
      Push(value.list_value());
    } else if (kind == "skip") {
      ExpectEqual(kind, OfError(tower_->SkipLateStep()), value);
    } else if (kind == "report") {
      ExpectEqual(kind, OfError(tower_->TakeRefusal()), value);
    } else if (kind == "send") {
      ExpectEqual(kind, Send(), value);
    } else if (kind == "expect") {
      for (const auto& [part, expected] : fields)
        ExpectEqual(part, State(part, expected), expected);
    } else {
      ADD_FAILURE() << "no such event";
    }
  }

  std::unique_ptr<TowerState> tower_;

 private:
  static void ExpectEqual(const std::string& what, const Value& actual, const Value& expected) {
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(actual, expected))
        << what << " is " << ToJson(actual) << ", expected " << ToJson(expected);
  }

  void Push(const ListValue& sizes) {
    for (const Value& size : sizes.values()) {
      auto batch = std::make_shared<EncodedBatch>();
      batch->bytes = ToInt(size);
      batch->messages.emplace_back().mutable_header()->set_step(tower_->next_step());
      tower_->Push(std::move(batch));
    }
  }

  Value Send() {
    std::vector<Value> steps;
    while (const auto batch = tower_->TakeToSend()) {
      steps.push_back(Of(static_cast<double>(batch->messages[0].header().step())));
    }
    return Of(steps);
  }

  // The part of the state, in the form that `expected` has.
  Value State(const std::string& part, const Value& expected) {
    const auto number = [](int64_t n) { return Of(static_cast<double>(n)); };
    if (part == "open") {
      const v1::Open open = tower_->MakeOpen();
      return Of(std::vector{number(open.from()), number(open.through()), Of(open.take_over())});
    }
    if (part == "next_step") return number(tower_->next_step());
    if (part == "has_room") return Of(tower_->has_room());
    if (part == "bytes") return number(tower_->bytes());
    if (part == "all_sent") return Of(tower_->all_sent());
    if (part == "ended") return OfError(tower_->end());
    if (part == "resent") return number(tower_->stats().resent_batches);
    if (part == "reconnects") return number(tower_->stats().reconnects);
    if (part == "progress") return Progress(expected.struct_value());
    if (part == "outcome" || part == "durable") return Outcomes(part, expected.struct_value());
    ADD_FAILURE() << "no such part of the state: " << part;
    return {};
  }

  Value Outcomes(const std::string& part, const Struct& expected) {
    Value outcomes;
    for (const auto& [name, unused] : expected.fields()) {
      int64_t step = 0;
      EXPECT_TRUE(absl::SimpleAtoi(name, &step)) << name;
      (*outcomes.mutable_struct_value()->mutable_fields())[name] =
          Of(part == "durable" ? tower_->DurableOutcome(step) : tower_->Outcome(step));
    }
    return outcomes;
  }

  Value Progress(const Struct& expected) {
    const v1::Progress progress = tower_->progress();
    std::vector<Value> missed;
    for (const v1::StepRun& run : progress.missed()) {
      missed.push_back(Of(std::vector{Of(static_cast<double>(run.first_step())),
                                      Of(static_cast<double>(run.last_step())),
                                      Of(run.outcome() == v1::STEP_OUTCOME_FAILED)}));
    }
    const std::map<std::string, Value> all = {
        {"next", Of(static_cast<double>(progress.next()))},
        {"durable", Of(static_cast<double>(progress.durable()))},
        {"open_through", Of(static_cast<double>(progress.open_through()))},
        {"window", Of(static_cast<double>(progress.window()))},
        {"missed", Of(missed)}};
    Value state;
    for (const auto& [name, unused] : expected.fields()) {
      (*state.mutable_struct_value()->mutable_fields())[name] = all.at(name);
    }
    return state;
  }
};

TEST_P(ScenarioTest, IsFollowed) {
  const Struct scenario = Load(GetParam());
  const auto take_over = scenario.fields().find("take_over");
  tower_ = std::make_unique<TowerState>(
      "f", 0, take_over != scenario.fields().end() && take_over->second.bool_value());
  int index = 0;
  for (const Value& event : scenario.fields().at("events").list_value().values()) {
    SCOPED_TRACE(absl::StrCat("event ", index++, ": ", ToJson(event)));
    ASSERT_EQ(event.struct_value().fields().size(), 1);
    const auto& [kind, value] = *event.struct_value().fields().begin();
    Play(kind, value);
  }
  EXPECT_GT(index, 0);
}

INSTANTIATE_TEST_SUITE_P(, ScenarioTest, testing::ValuesIn(Scenarios()),
                         [](const auto& scenario) { return scenario.param; });

TEST(ScenariosTest, ThereAreScenarios) { EXPECT_GE(Scenarios().size(), 16); }

}  // namespace
}  // namespace fisherd
