// The server's answers as text.

#ifndef FISHERD_CTL_RENDER_H_
#define FISHERD_CTL_RENDER_H_

#include <string>
#include <vector>

#include "fisherd/matrix.h"
#include "fisherd/v1/factor_service.pb.h"

namespace fisherd::ctl {

// A message as JSON: the .proto's field names, every field, one per line. Stable.
std::string Json(const google::protobuf::Message& message);

// The same on a line of its own.
std::string JsonLine(const google::protobuf::Message& message);

// "STEP_ENDED       mlp/0  step 7: WHOLE, towers 2, label 90; next 8, durable 7"
std::string EventLine(const v1::FactorEvent& event);

// Factors as a table, one per line.
std::string FactorTable(const std::vector<v1::FactorInfo>& factors);

// One factor as a page.
std::string FactorPage(const v1::FactorInfo& factor);

std::string DampingTable(const std::vector<v1::DampingInfo>& dampings);

// "matpower(-0.5, global)"
std::string OperatorName(const v1::Operator& op);

// What there is to say about elements without showing all of them. Not for an empty matrix.
struct Summary {
  int64_t rows = 0;
  int64_t cols = 0;
  double min = 0;
  double max = 0;
  double mean = 0;
  int64_t zeros = 0;
};
template <FloatOrDouble Scalar>
Summary Summarize(const Eigen::Map<const Matrix<Scalar>>& matrix) {
  return {.rows = matrix.rows(),
          .cols = matrix.cols(),
          .min = static_cast<double>(matrix.minCoeff()),
          .max = static_cast<double>(matrix.maxCoeff()),
          .mean = matrix.template cast<double>().mean(),
          .zeros = (matrix.array() == 0).count()};
}

// `corner` holds the first rows and columns of what is summarized; `what` says what was read.
std::string ReadingPage(const std::string& what, const v1::OperatorInfo& info,
                        const Summary& summary, const Matrix<double>& corner);
std::string ReadingJson(const v1::OperatorInfo& info, const Summary& summary,
                        const std::string& output);

}  // namespace fisherd::ctl

#endif  // FISHERD_CTL_RENDER_H_
