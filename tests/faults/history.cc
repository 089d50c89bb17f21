#include "tests/faults/history.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "client/cpp/channel.h"

namespace fisherd::faults {

Matrix<float> Elements(const LinearOperatorDiag<float>& diagonal) {
  const int64_t outputs = diagonal.weight().cols();
  return Eigen::Map<const Matrix<float>>(diagonal.diag_part().data(),
                                         diagonal.diag_part().size() / outputs, outputs);
}

void History::Acknowledge(const std::string& factor, int64_t step) {
  core::MutexLock lock(&mutex_);
  int64_t& known = acknowledged_[factor];
  known = std::max(known, step);
}

int64_t History::acknowledged(const std::string& factor) const {
  core::MutexLock lock(&mutex_);
  const auto known = acknowledged_.find(factor);
  return known == acknowledged_.end() ? 0 : known->second;
}

void History::Add(const std::string& factor, Read read) {
  core::MutexLock lock(&mutex_);
  reads_[factor].push_back(std::move(read));
}

size_t History::reads(const std::string& factor) const {
  core::MutexLock lock(&mutex_);
  const auto reads = reads_.find(factor);
  return reads == reads_.end() ? 0 : reads->second.size();
}

void History::Check(const std::string& factor, const std::vector<Matrix<double>>& sums,
                    bool went_back) const {
  core::MutexLock lock(&mutex_);
  const auto found = reads_.find(factor);
  if (found == reads_.end()) return;
  v1::Version before;
  for (const Read& read : found->second) {
    const v1::Version& version = read.version;
    EXPECT_GE(version.step(), read.floor) << factor;
    EXPECT_GE(version.incarnation(), before.incarnation()) << factor;
    if (!went_back && version.incarnation() == before.incarnation()) {
      EXPECT_GE(version.epoch(), before.epoch()) << factor;
      EXPECT_GE(version.step(), before.step()) << factor;
    }
    before = version;
    ASSERT_LT(version.step(), std::ssize(sums)) << factor;
    ASSERT_EQ(read.value.cast<double>(), sums[static_cast<size_t>(version.step())])
        << factor << " at step " << version.step();
  }
}

Reader::Reader(Client client, std::vector<std::string> factors, History* history)
    : client_(std::move(client)), factors_(std::move(factors)), history_(history) {
  thread_ = std::thread([this] { Run(); });
}

Reader::~Reader() {
  stop_ = true;
  thread_.join();
}

void Reader::Run() {
  while (!stop_) {
    for (const std::string& factor : factors_) ReadOnce(factor, {});
    for (const std::string& factor : factors_) {
      const v1::Version& last = last_[factor];
      if (last.incarnation() == 0) continue;
      ReadOnce(factor, {.min_version = MinVersion{last.incarnation(), last.step() + 1},
                        .timeout = absl::Milliseconds(20)});
    }
  }
}

void Reader::ReadOnce(const std::string& factor, const ReadOptions& options) {
  const int64_t floor = history_->acknowledged(factor);
  auto read = client_.Read<float>(factor, Covariance(), options);
  if (!read.ok()) {
    EXPECT_TRUE(MayPass(read.status()) || absl::IsDataLoss(read.status())) << read.status();
    return;
  }
  EXPECT_GT(read->info.next(), options.min_version ? options.min_version->step : 0);
  last_[factor] = read->version();
  history_->Add(factor,
                {.floor = floor, .version = read->version(), .value = Elements(read->value)});
}

}  // namespace fisherd::faults
