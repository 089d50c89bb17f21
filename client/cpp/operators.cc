#include "fisherd/operators.h"

namespace fisherd {

v1::Operator Covariance() {
  v1::Operator op;
  op.mutable_covariance();
  return op;
}

v1::Operator Matpower(double exponent, const Damping& damping) {
  v1::Operator op;
  op.mutable_matpower()->set_exponent(exponent);
  *op.mutable_matpower()->mutable_damping() = damping.proto();
  return op;
}

v1::Operator Cholesky(const Damping& damping) {
  v1::Operator op;
  *op.mutable_cholesky()->mutable_damping() = damping.proto();
  return op;
}

v1::Operator CholeskyInverse(const Damping& damping) {
  v1::Operator op;
  *op.mutable_cholesky_inverse()->mutable_damping() = damping.proto();
  return op;
}

v1::RefreshPolicy OnRead() {
  v1::RefreshPolicy policy;
  policy.set_kind(v1::REFRESH_KIND_ON_READ);
  return policy;
}

v1::RefreshPolicy EveryNSteps(int64_t steps) {
  v1::RefreshPolicy policy;
  policy.set_kind(v1::REFRESH_KIND_EVERY_N_STEPS);
  policy.set_steps(steps);
  return policy;
}

v1::RefreshPolicy OnRequest() {
  v1::RefreshPolicy policy;
  policy.set_kind(v1::REFRESH_KIND_ON_REQUEST);
  return policy;
}

}  // namespace fisherd
