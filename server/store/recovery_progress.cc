#include "server/store/recovery_progress.h"

#include "absl/strings/str_cat.h"
#include "core/clock.h"
#include "server/log.h"

namespace fisherd::server {

void RecoveryProgress::Begin(int64_t factors) {
  core::MutexLock lock(&mutex_);
  recovery_ = {.factors = factors};
  began_ = told_ = core::SteadyNow();
}

void RecoveryProgress::Add(bool restored) {
  core::MutexLock lock(&mutex_);
  (restored ? recovery_.restored : recovery_.damaged) += 1;
  const absl::Time now = core::SteadyNow();
  if (now - told_ < absl::Seconds(2)) return;
  told_ = now;
  LogInfo("recovering: ", recovery_.restored + recovery_.damaged, " of ", recovery_.factors,
          " factors");
}

void RecoveryProgress::Finish() {
  core::MutexLock lock(&mutex_);
  recovery_.done = true;
  recovery_.time = core::SteadyNow() - began_;
  LogInfo("recovered ", recovery_.restored, " factors in ",
          absl::FormatDuration(absl::Trunc(recovery_.time, absl::Milliseconds(1))),
          recovery_.damaged == 0 ? "" : absl::StrCat("; damaged: ", recovery_.damaged));
}

Recovery RecoveryProgress::Get() const {
  core::MutexLock lock(&mutex_);
  Recovery recovery = recovery_;
  if (!recovery.done && began_ != absl::InfiniteFuture()) {
    recovery.time = core::SteadyNow() - began_;
  }
  return recovery;
}

}  // namespace fisherd::server
