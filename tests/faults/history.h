// What was acknowledged and read, in order, to be checked against a model.

#ifndef FISHERD_TESTS_FAULTS_HISTORY_H_
#define FISHERD_TESTS_FAULTS_HISTORY_H_

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <thread>
#include <vector>

#include "core/mutex.h"
#include "fisherd/client.h"

namespace fisherd::faults {

// In the covariance's own shape, the bias last.
Matrix<float> Elements(const LinearOperatorDiag<float>& diagonal);

// Thread-safe.
class History {
 public:
  struct Read {
    int64_t floor = 0;  // what the factor had certainly committed when the read began
    v1::Version version;
    Matrix<float> value;
  };

  // A step was told to have counted, for good: no later read may be older.
  void Acknowledge(const std::string& factor, int64_t step);
  int64_t acknowledged(const std::string& factor) const;

  // One reader's, in its order.
  void Add(const std::string& factor, Read read);
  size_t reads(const std::string& factor) const;

  // The reads of a factor were each at least as new as was acknowledged before, in order, and just
  // what `sums` says of their step. `went_back`: the server was restarted, so that reads above what
  // was acknowledged for good may have gone back.
  void Check(const std::string& factor, const std::vector<Matrix<double>>& sums,
             bool went_back = false) const;

 private:
  mutable core::Mutex mutex_;
  std::map<std::string, int64_t> acknowledged_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::vector<Read>> reads_ ABSL_GUARDED_BY(mutex_);
};

// Reads factors in turn, in a thread of its own, for as long as it lives: what there is, and then
// the step after it.
class Reader {
 public:
  Reader(Client client, std::vector<std::string> factors, History* history);
  ~Reader();

 private:
  void Run();
  void ReadOnce(const std::string& factor, const ReadOptions& options);

  Client client_;
  const std::vector<std::string> factors_;
  History* const history_;
  std::map<std::string, v1::Version> last_;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

}  // namespace fisherd::faults

#endif  // FISHERD_TESTS_FAULTS_HISTORY_H_
