#include "server/factor_calls.h"

#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/error.h"
#include "core/kinds/kind.h"
#include "core/mutex.h"
#include "server/codec.h"
#include "server/factor_error.h"
#include "server/paging.h"

namespace fisherd::server {
namespace {

bool IsOldIncarnation(const absl::Status& status) {
  const auto details = core::GetErrorDetails(status);
  return details.has_value() && details->reason == core::reason::kOldIncarnation;
}

// Adds up what several factors compute, and calls back when the last has.
class InversesUpdate {
 public:
  InversesUpdate(size_t factors, v1::UpdateInversesResponse* response,
                 std::function<void(const absl::Status&)> done)
      : response_(response), done_(std::move(done)), left_(factors) {}

  void Add(const std::string& factor, const absl::StatusOr<int>& updated) {
    absl::Status status;
    {
      core::MutexLock lock(&mutex_);
      if (updated.ok()) updated_ += *updated;
      status_.Update(NameFactor(updated.status(), factor));
      if (--left_ > 0) return;
      status = status_;
      response_->set_updated(updated_);
    }
    done_(status);
  }

 private:
  v1::UpdateInversesResponse* const response_;
  const std::function<void(const absl::Status&)> done_;
  core::Mutex mutex_;
  size_t left_ ABSL_GUARDED_BY(mutex_);
  int updated_ ABSL_GUARDED_BY(mutex_) = 0;
  absl::Status status_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace

absl::Status FactorCalls::CreateFactor(const v1::CreateFactorRequest& request,
                                       v1::CreateFactorResponse& response) {
  const auto spec = FromProto(request.spec(), "spec");
  if (!spec.ok()) return NameFactor(spec.status(), request.name());
  const auto created = registry_.Create(request.name(), *spec);
  if (!created.ok()) return NameFactor(created.status(), request.name());
  *response.mutable_factor() = ToProto(created->factor->Describe());
  response.set_created(created->created);
  return absl::OkStatus();
}

Growth FactorCalls::GrowthOf(const v1::CreateFactorRequest& request) const {
  const auto spec = FromProto(request.spec(), "spec");
  if (!spec.ok() || registry_.Find(request.name()).ok()) return {};
  const auto kind = core::MakeKind(*spec);
  if (!kind.ok()) return {};
  return {.factors = 1, .bytes = 2 * (*kind)->state_shape().bytes()};  // one for a pinned version
}

Growth FactorCalls::GrowthOf(const v1::RegisterRequest& request) const {
  const auto factor = registry_.Find(request.factor());
  const auto op = FromProto(request.operator_(), "operator");
  if (!factor.ok() || !op.ok()) return {};
  const core::FactorInfo info = (*factor)->Describe();
  for (const core::RegistrationInfo& known : info.registrations) {
    if (known.op == *op) return {};
  }
  return {.bytes = info.state_bytes};
}

absl::Status FactorCalls::DescribeFactor(const v1::DescribeFactorRequest& request,
                                         v1::DescribeFactorResponse& response) {
  const auto factor = registry_.Find(request.name());
  if (!factor.ok()) return factor.status();
  *response.mutable_factor() = ToProto((*factor)->Describe());
  return absl::OkStatus();
}

absl::Status FactorCalls::ListFactors(const v1::ListFactorsRequest& request,
                                      v1::ListFactorsResponse& response) {
  const auto page = PageOf(request);
  if (!page.ok()) return page.status();
  response.set_next_page_token(FillPage(
      *page,
      [&](const auto& prefix, const auto& after, size_t limit) {
        return registry_.List(prefix, after, limit);
      },
      [&](const auto& factor) { *response.add_factors() = ToProto(factor->Describe()); },
      [](const auto& factor) { return factor->name(); }));
  return absl::OkStatus();
}

absl::Status FactorCalls::DeleteFactor(const v1::DeleteFactorRequest& request) {
  return registry_.Delete(request.name());
}

absl::Status FactorCalls::ResetFactor(const v1::ResetFactorRequest& request,
                                      v1::ResetFactorResponse& response) {
  const auto factor = registry_.Reset(request.name());
  if (!factor.ok()) return NameFactor(factor.status(), request.name());
  *response.mutable_factor() = ToProto((*factor)->Describe());
  return absl::OkStatus();
}

absl::Status FactorCalls::SetTowers(const v1::SetTowersRequest& request,
                                    v1::SetTowersResponse& response) {
  const auto from = registry_.SetTowers(request.name(), request.towers(), request.now());
  if (!from.ok()) return NameFactor(from.status(), request.name());
  response.set_from_step(*from);
  return absl::OkStatus();
}

absl::Status FactorCalls::SetDamping(const v1::SetDampingRequest& request) {
  return registry_.SetDamping(request.name(), request.value());
}

absl::Status FactorCalls::ListDampings(const v1::ListDampingsRequest& request,
                                       v1::ListDampingsResponse& response) {
  const auto page = PageOf(request);
  if (!page.ok()) return page.status();
  response.set_next_page_token(FillPage(
      *page,
      [&](const auto& prefix, const auto& after, size_t limit) {
        return registry_.dampings().List(prefix, after, limit);
      },
      [&](const auto& damping) {
        v1::DampingInfo* const info = response.add_dampings();
        info->set_name(damping.first);
        info->set_value(damping.second);
      },
      [](const auto& damping) { return damping.first; }));
  return absl::OkStatus();
}

absl::Status FactorCalls::DeleteDamping(const v1::DeleteDampingRequest& request) {
  return registry_.DeleteDamping(request.name());
}

absl::Status FactorCalls::Register(const v1::RegisterRequest& request,
                                   v1::RegisterResponse& response) {
  if (auto factor = registry_.Find(request.factor()); !factor.ok()) return factor.status();
  const auto op = FromProto(request.operator_(), "operator");
  if (!op.ok()) return NameFactor(op.status(), request.factor());
  const auto policy = FromProto(request.policy(), "policy");
  if (!policy.ok()) return NameFactor(policy.status(), request.factor());
  const auto registration = registry_.Register(request.factor(), *op, *policy);
  if (!registration.ok()) return NameFactor(registration.status(), request.factor());
  *response.mutable_registration() = ToProto(*registration);
  return absl::OkStatus();
}

absl::Status FactorCalls::Unregister(const v1::UnregisterRequest& request) {
  if (auto factor = registry_.Find(request.factor()); !factor.ok()) return factor.status();
  const auto op = FromProto(request.operator_(), "operator");
  if (!op.ok()) return NameFactor(op.status(), request.factor());
  return NameFactor(registry_.Unregister(request.factor(), *op), request.factor());
}

void FactorCalls::UpdateInverses(const v1::UpdateInversesRequest& request,
                                 v1::UpdateInversesResponse* response,
                                 std::function<void(const absl::Status&)> done) {
  std::vector<std::shared_ptr<core::Factor>> factors;
  if (request.factor().empty()) {
    factors = registry_.List("", "", std::numeric_limits<size_t>::max());
    if (factors.empty()) return done(absl::OkStatus());
  } else {
    auto factor = registry_.Find(request.factor());
    if (!factor.ok()) return done(factor.status());
    factors.push_back(*std::move(factor));
  }
  const auto update = std::make_shared<InversesUpdate>(factors.size(), response, std::move(done));
  const bool all = request.factor().empty();
  for (const auto& factor : factors) {
    factor->UpdateInverses(
        [update, all, name = factor->name()](const absl::StatusOr<int>& updated) {
          // Of all factors, one that has been deleted meanwhile is none.
          update->Add(name, all && IsOldIncarnation(updated.status()) ? 0 : updated);
        });
  }
}

}  // namespace fisherd::server
