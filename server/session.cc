#include "server/session.h"

#include <algorithm>
#include <limits>
#include <set>
#include <vector>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "core/error.h"
#include "core/names.h"
#include "core/step_gather.h"
#include "server/codec.h"
#include "server/session_table.h"
#include "server/status.h"

namespace fisherd::server {
namespace {

// As many as a message may carry: while they are read, nobody else gets at the batch.
constexpr int64_t kMaxSharedBytes = int64_t{4} << 20;

// "header, rows".
std::string PartsOf(const v1::UpdateRequest& message) {
  std::vector<std::string> parts;
  if (message.has_hello()) parts.push_back("hello");
  if (message.has_open()) parts.push_back("open");
  if (message.has_header()) parts.push_back("header");
  if (message.has_rows()) parts.push_back("rows");
  if (message.has_end()) parts.push_back("end");
  if (message.has_want_durable()) parts.push_back("want_durable");
  return parts.empty() ? "nothing" : absl::StrJoin(parts, ", ");
}

absl::Status Malformed(std::string_view message) {
  return core::MakeError(absl::StatusCode::kInvalidArgument, core::reason::kMalformedFrame,
                         message);
}

// `step` is 0 for an open.
std::string BatchName(std::string_view factor, int tower, int64_t step) {
  const std::string name = absl::StrFormat("factor %s, tower %d", core::Quote(factor), tower);
  return step == 0 ? name : absl::StrFormat("%s, step %d", name, step);
}

v1::UpdateResponse Refusal(std::string_view factor, int tower, int64_t step,
                           const absl::Status& why) {
  core::ErrorDetails details = core::GetErrorDetails(why).value_or(core::ErrorDetails{});
  details.metadata.emplace("factor", factor);
  details.metadata.emplace("tower", absl::StrFormat("%d", tower));
  if (step != 0) details.metadata.emplace("step", absl::StrFormat("%d", step));
  v1::UpdateResponse answer;
  v1::Refused& refused = *answer.mutable_refused();
  refused.set_factor(Utf8Prefix(factor, core::kMaxNameBytes));
  refused.set_tower(tower);
  refused.set_step(step);
  *refused.mutable_status() = ToRpcStatus(core::MakeError(
      why.code(), absl::StrFormat("%s: %s", BatchName(factor, tower, step), why.message()),
      std::move(details)));
  return answer;
}

// Not the batch is at fault, but the way that it came; another stream begins with another one.
absl::Status UnknownRegion() {
  return core::MakeError(absl::StatusCode::kUnavailable, core::reason::kRegionUnknown,
                         "no memory of that token is shared with this server any more; open a new "
                         "stream, and share it again or send the bytes",
                         {{"field", "rows.shared.region"}});
}

// What `shared` stands for. `beside` are the bytes of `data`, of which there may be none.
absl::StatusOr<std::string_view> BytesOf(const v1::SharedBytes& shared, int64_t beside,
                                         const SharedRegion& region) {
  if (beside > 0) {
    return core::BadArgument("shared", "the rows are in shared memory, and in data; expected one");
  }
  const int64_t most = std::min(kMaxSharedBytes, region.size());
  if (shared.size() < 1 || shared.size() > most) {
    return core::BadArgument(
        "shared.size", absl::StrFormat("shared.size is %d; expected 1 to %d", shared.size(), most));
  }
  if (shared.offset() < 0 || shared.offset() > region.size() - shared.size()) {
    return core::BadArgument(
        "shared.offset", absl::StrFormat("shared.offset is %d; expected 0 to %d, for %d bytes of "
                                         "%d",
                                         shared.offset(), region.size() - shared.size(),
                                         shared.size(), region.size()));
  }
  return region.bytes(shared.offset(), shared.size());
}

absl::Status CheckNotNegative(std::string_view field, int64_t value) {
  if (value >= 0) return absl::OkStatus();
  return core::BadArgument(field, absl::StrFormat("%s is %d; expected a step, or 0", field, value));
}

}  // namespace

Session::Session(core::FactorRegistry& registry, SessionTable& sessions, std::function<void()> wake,
                 const SharedRegions* regions, Caller caller)
    : registry_(registry),
      sessions_(sessions),
      wake_(std::move(wake)),
      regions_(regions),
      caller_(std::move(caller)) {}

absl::Status Session::Receive(std::span<const std::string_view> message) {
  core::SmallCommit commit;
  absl::Status status;
  {
    core::MutexLock receiving(&receiving_);
    if (const auto reason = closed()) return *reason;
    status = ReceiveFrame(message);
    commit = std::exchange(commit_, nullptr);
  }
  if (commit) commit();
  return status;
}

absl::Status Session::ReceiveFrame(std::span<const std::string_view> message) {
  const absl::StatusOr<UpdateFrame> frame = DecodeUpdate(message);
  if (!frame.ok()) return frame.status();
  const v1::UpdateRequest& parts = frame->message;
  if (absl::Status status = CheckGrammar(parts); !status.ok()) return status;
  if (parts.has_hello()) return Enter(parts.hello());
  if (parts.has_want_durable()) WantDurable();
  if (parts.has_open()) Open(parts.open());
  if (parts.has_header()) BeginBatch(parts.header());
  if (parts.has_rows()) {
    if (absl::Status status = AddRows(*frame); !status.ok()) return status;
  }
  if (parts.has_end()) EndBatch(parts.end());
  return absl::OkStatus();
}

absl::Status Session::CheckGrammar(const v1::UpdateRequest& message) const {
  const bool of_batch = message.has_rows() || message.has_end();
  const bool others = message.has_open() || message.has_want_durable();
  std::string expected;
  if (!entered_) {
    if (message.has_hello() && !others && !message.has_header() && !of_batch) {
      return absl::OkStatus();
    }
    expected = "hello alone, first on the stream";
  } else if (batch_.has_value()) {
    if (of_batch && !message.has_hello() && !others && !message.has_header()) {
      return absl::OkStatus();
    }
    const auto& [factor, tower] = batch_->tower;
    expected = "rows or end of the batch begun: " + BatchName(factor, tower, batch_->step);
  } else {
    const bool alone =
        message.has_open() != message.has_want_durable() && !message.has_header() && !of_batch;
    const bool batch = message.has_header() && !others;
    if (!message.has_hello() && (alone || batch)) return absl::OkStatus();
    expected = "open or want_durable alone, or a header, to which rows and end may be added";
  }
  return Malformed(absl::StrFormat("a message with %s; expected %s", PartsOf(message), expected));
}

void Session::WantDurable() {
  std::set<std::string> factors;
  {
    core::MutexLock lock(&mutex_);
    for (const auto& [key, tower] : towers_) factors.insert(key.first);
  }
  for (const std::string& factor : factors) registry_.WantDurable(factor);
}

absl::Status Session::Enter(const v1::Hello& hello) {
  const auto client = SixteenBytes(hello.client_id());
  if (!client.has_value()) {
    return Malformed(absl::StrFormat("hello.client_id is %d bytes; expected %d random ones",
                                     hello.client_id().size(), client_.size()));
  }
  client_ = *client;
  entered_ = true;
  return sessions_.Enter(client_, hello.stream(), shared_from_this());
}

void Session::Open(const v1::Open& open) {
  const TowerKey key(open.factor(), open.tower());
  // From here on this open's answer is the tower's next: no acknowledgement comes before it.
  std::map<TowerKey, OpenTower>::node_type before;
  {
    core::MutexLock lock(&mutex_);
    before = towers_.extract(key);
    std::erase(acks_, key);
  }
  const absl::Status status = TryOpen(key, open);
  if (status.ok()) return;
  Answer(Refusal(open.factor(), open.tower(), 0, status));
  if (before.empty()) return;
  core::MutexLock lock(&mutex_);
  before.mapped().ack_pending = false;
  AddAck(key, towers_.insert(std::move(before)).position->second);
}

absl::Status Session::TryOpen(const TowerKey& key, const v1::Open& open) {
  if (absl::Status status = caller_.Check(Permission::kUpdate, open.factor()); !status.ok()) {
    return status;
  }
  if (absl::Status status = CheckNotNegative("from", open.from()); !status.ok()) return status;
  if (absl::Status status = CheckNotNegative("through", open.through()); !status.ok()) {
    return status;
  }
  const auto factor = registry_.Find(open.factor());
  if (!factor.ok()) return factor.status();
  const auto progress = (*factor)->Open({.tower = open.tower(),
                                         .client = client_,
                                         .from = open.from(),
                                         .through = open.through(),
                                         .take_over = open.take_over()},
                                        shared_from_this());
  if (!progress.ok()) return progress.status();
  v1::UpdateResponse answer;
  *answer.mutable_opened()->mutable_progress() = ToProto(*progress, open.factor(), open.tower());
  uint64_t serial = 0;
  {
    core::MutexLock lock(&mutex_);
    serial = ++last_serial_;
    towers_[key] = {.factor = *factor,
                    .incarnation = progress->incarnation,
                    .serial = serial,
                    .told_next = progress->next,
                    .ack_pending = false};
    answers_.push_back(std::move(answer));
  }
  // What happened to the factor before the tower was in the map has gone unnoticed.
  const core::Progress now = (*factor)->GetProgress(open.tower(), progress->next);
  if (now.next != progress->next || now.open_through != progress->open_through ||
      now.incarnation != progress->incarnation || now.deleted ||
      !(*factor)->IsOwner(open.tower(), this)) {
    core::MutexLock lock(&mutex_);
    AddAck(key, towers_.at(key));
  }
  return absl::OkStatus();
}

void Session::BeginBatch(const v1::BatchHeader& header) {
  batch_ = IncomingBatch{.tower = {header.factor(), header.tower()},
                         .step = header.step(),
                         .pending = nullptr,
                         .duplicate = false};
  if (absl::Status status = Admit(header); !status.ok()) RefuseBatch(status);
}

absl::Status Session::Admit(const v1::BatchHeader& header) {
  if (absl::Status status = caller_.Check(Permission::kUpdate, header.factor()); !status.ok()) {
    return status;
  }
  std::optional<OpenTower> tower;
  {
    core::MutexLock lock(&mutex_);
    if (const auto it = towers_.find(batch_->tower); it != towers_.end()) tower = it->second;
  }
  if (!tower.has_value()) return NotOpen(batch_->tower);
  const auto converted = FromProto(header);
  if (!converted.ok()) return converted.status();
  auto admission = tower->factor->Begin(*converted, this);
  if (!admission.ok()) return admission.status();
  batch_->pending = std::move(admission->pending);
  batch_->duplicate = batch_->pending == nullptr && !admission->on_hold;
  if (admission->on_hold) Hold(batch_->tower, batch_->step);
  return absl::OkStatus();
}

absl::Status Session::NotOpen(const TowerKey& key) const {
  const auto& [name, tower] = key;
  const auto factor = registry_.Find(name);
  if (!factor.ok()) return factor.status();
  if (absl::Status status = core::CheckTower(tower, (*factor)->towers()); !status.ok()) {
    return status;
  }
  return core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kTowerNotOpen,
                         "the tower is not open on this stream; open it first",
                         {{"field", "tower"}});
}

absl::Status Session::AddRows(const UpdateFrame& frame) {
  if (batch_->pending == nullptr) return absl::OkStatus();
  const v1::BatchRows& rows = frame.message.rows();
  core::IncomingBatch& batch = batch_->pending->rows();
  absl::Status status;
  if (!rows.has_shared()) {
    status = batch.AddRows(rows.first_row(), rows.row_count(), frame.payload_bytes, frame.payload,
                           rows.crc32c());
  } else {
    const auto region = regions_ == nullptr ? nullptr : regions_->Find(rows.shared().region());
    if (region == nullptr) return UnknownRegion();
    const auto bytes = BytesOf(rows.shared(), frame.payload_bytes, *region);
    status = !bytes.ok()
                 ? bytes.status()
                 : batch.AddRows(rows.first_row(), rows.row_count(),
                                 static_cast<int64_t>(bytes->size()), {{*bytes}}, std::nullopt);
  }
  if (!status.ok()) RefuseBatch(status);
  return absl::OkStatus();
}

void Session::EndBatch(const v1::BatchEnd& end) {
  if (batch_->pending != nullptr) {
    if (absl::Status status = batch_->pending->Complete(end.rows(), &commit_); !status.ok()) {
      RefuseBatch(status);
    }
  }
  const IncomingBatch batch = *std::exchange(batch_, std::nullopt);
  if (!batch.duplicate) return;
  core::MutexLock lock(&mutex_);
  const auto it = towers_.find(batch.tower);
  if (it != towers_.end()) AddAck(it->first, it->second);
}

// The acknowledgement after it says whether the step has opened meanwhile.
void Session::Hold(const TowerKey& key, int64_t step) {
  v1::UpdateResponse answer;
  answer.mutable_hold()->set_factor(key.first);
  answer.mutable_hold()->set_tower(key.second);
  answer.mutable_hold()->set_step(step);
  core::MutexLock lock(&mutex_);
  const auto it = towers_.find(key);
  if (it == towers_.end()) return;
  answers_.push_back(std::move(answer));
  AddAck(key, it->second);
}

void Session::OnHold(const std::shared_ptr<core::Factor>& factor, int tower, int64_t step) {
  Hold({factor->name(), tower}, step);
  wake_();
}

void Session::RefuseBatch(const absl::Status& why) {
  registry_.activity().batches_refused.Add(why);
  batch_->pending = nullptr;
  Answer(Refusal(batch_->tower.first, batch_->tower.second, batch_->step, why));
}

void Session::Answer(v1::UpdateResponse answer) {
  core::MutexLock lock(&mutex_);
  answers_.push_back(std::move(answer));
}

bool Session::AddAck(const TowerKey& key, OpenTower& tower) {
  if (std::exchange(tower.ack_pending, true)) return false;
  acks_.push_back(key);
  return true;
}

void Session::OnProgress(const std::shared_ptr<core::Factor>& factor) {
  bool added = false;
  {
    core::MutexLock lock(&mutex_);
    auto it = towers_.lower_bound({factor->name(), std::numeric_limits<int>::min()});
    for (; it != towers_.end() && it->first.first == factor->name(); ++it) {
      if (it->second.factor == factor) added |= AddAck(it->first, it->second);
    }
  }
  if (added) wake_();
}

std::optional<v1::UpdateResponse> Session::NextAnswer() {
  for (;;) {
    TowerKey key;
    OpenTower tower;
    {
      core::MutexLock lock(&mutex_);
      if (!answers_.empty()) {
        v1::UpdateResponse answer = std::move(answers_.front());
        answers_.pop_front();
        return answer;
      }
      if (acks_.empty()) return std::nullopt;
      key = std::move(acks_.front());
      acks_.pop_front();
      tower = towers_.at(key);
      towers_.at(key).ack_pending = false;
    }
    if (auto answer = Acknowledge(key, tower)) return answer;
  }
}

std::optional<v1::UpdateResponse> Session::Acknowledge(const TowerKey& key,
                                                       const OpenTower& tower) {
  const auto& [name, number] = key;
  // In this order: a tower that is lost by a reset has its progress tell so.
  const bool owner = tower.factor->IsOwner(number, this);
  const core::Progress progress = tower.factor->GetProgress(number, tower.told_next);
  std::optional<absl::Status> lost;
  if (progress.deleted) {
    lost = core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kOldIncarnation,
                           "the factor has been deleted");
  } else if (progress.incarnation != tower.incarnation) {
    lost = core::MakeError(
        absl::StatusCode::kFailedPrecondition, core::reason::kOldIncarnation,
        absl::StrFormat("incarnation %d has ended by a reset; open the tower again, of "
                        "incarnation %d",
                        tower.incarnation, progress.incarnation));
  } else if (!owner) {
    lost = core::MakeError(absl::StatusCode::kFailedPrecondition, core::reason::kTowerClaimed,
                           "another client has taken over the tower");
  }
  core::MutexLock lock(&mutex_);
  const auto it = towers_.find(key);
  if (it == towers_.end() || it->second.serial != tower.serial) return std::nullopt;
  if (lost.has_value()) {
    towers_.erase(it);
    std::erase(acks_, key);
    return Refusal(name, number, 0, *lost);
  }
  it->second.told_next = progress.next;
  v1::UpdateResponse answer;
  *answer.mutable_ack()->mutable_progress() = ToProto(progress, name, number);
  return answer;
}

bool Session::WantsMessage() const {
  core::MutexLock lock(&mutex_);
  return answers_.size() < kMaxWaitingAnswers;
}

void Session::Close(absl::Status reason) {
  {
    core::MutexLock receiving(&receiving_);
    std::set<std::shared_ptr<core::Factor>> factors;
    {
      core::MutexLock lock(&mutex_);
      if (closed_.has_value()) return;
      closed_ = std::move(reason);
      for (auto& [key, tower] : towers_) factors.insert(std::move(tower.factor));
      towers_.clear();
      answers_.clear();
      acks_.clear();
    }
    batch_.reset();
    for (const auto& factor : factors) factor->Close(this);
    sessions_.Remove(shared_from_this());
  }
  wake_();
}

std::optional<absl::Status> Session::closed() const {
  core::MutexLock lock(&mutex_);
  return closed_;
}

}  // namespace fisherd::server
