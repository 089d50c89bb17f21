#include "core/registered_results.h"

#include <algorithm>
#include <utility>

namespace fisherd::core {

std::shared_ptr<Registration> RegisteredResults::Add(const OperatorSpec& op,
                                                     const RefreshPolicy& policy,
                                                     ByteGrant reserve) {
  std::shared_ptr<Registration> registration = Find(op);
  if (registration == nullptr) {
    registration = std::make_shared<Registration>();
    registration->op = op;
    registration->reserve = std::move(reserve);
    registrations_.push_back(registration);
  }
  registration->policy = policy;
  return registration;
}

std::shared_ptr<Registration> RegisteredResults::Find(const OperatorSpec& op) const {
  for (const auto& registration : registrations_) {
    if (registration->op == op) return registration;
  }
  return nullptr;
}

bool RegisteredResults::Remove(const OperatorSpec& op) {
  return std::erase_if(registrations_, [&](const auto& r) { return r->op == op; }) > 0;
}

void RegisteredResults::Invalidate() {
  for (const auto& registration : registrations_) registration->cached = nullptr;
}

bool IsCached(const OperatorSpec& op) {
  return op.kind != OperatorKind::kCovariance && op.power() != 1;
}

bool IsFresh(const Registration& registration, const Version& current, double damping) {
  const auto& cached = registration.cached;
  if (cached == nullptr) return false;
  if (registration.policy.kind != RefreshKind::kOnRead) return true;
  return cached->version == current && cached->damping == damping;
}

bool IsDue(const Registration& registration, int64_t steps_committed) {
  return IsCached(registration.op) && registration.policy.kind == RefreshKind::kEveryNSteps &&
         steps_committed % registration.policy.steps == 0;
}

}  // namespace fisherd::core
