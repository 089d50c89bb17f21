// What can be read of a factor, by the names that the field gives it.

#ifndef FISHERD_OPERATORS_H_
#define FISHERD_OPERATORS_H_

#include <concepts>
#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

#include "fisherd/v1/types.pb.h"

namespace fisherd {

// λ: a number, or the name of a damping function (Client::SetDamping). Implicit from both.
class Damping {
 public:
  template <typename T>
  requires std::is_arithmetic_v<T> Damping(T value) {
    proto_.set_value(static_cast<double>(value));
  }
  template <typename T>
  requires std::convertible_to<const T&, std::string_view> Damping(const T& name) {
    proto_.set_name(std::string(std::string_view(name)));
  }

  const v1::Damping& proto() const { return proto_; }

 private:
  v1::Damping proto_;
};

// v, the covariance itself.
v1::Operator Covariance();
// (v + λ)^exponent
v1::Operator Matpower(double exponent, const Damping& damping);
// (v + λ)^½
v1::Operator Cholesky(const Damping& damping);
// (v + λ)^−½
v1::Operator CholeskyInverse(const Damping& damping);

// When a registered result is computed anew.
v1::RefreshPolicy OnRead();
v1::RefreshPolicy EveryNSteps(int64_t steps);
v1::RefreshPolicy OnRequest();

}  // namespace fisherd

#endif  // FISHERD_OPERATORS_H_
