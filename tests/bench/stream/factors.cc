#include "tests/bench/stream/factors.h"

#include <cstdio>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tests/bench/core/json_object.h"
#include "tests/bench/core/timing.h"
#include "tests/bench/stream/server_process.h"
#include "tests/bench/stream/trainers.h"

namespace fisherd::bench {
namespace {

constexpr int kMany = 10'000;
constexpr int kUpdated = 100;
constexpr int64_t kBatchBytes = 16 << 10;

// A server with `count` factors, and a trainer of kUpdated of them, evenly spread.
class Contestant {
 public:
  Contestant(const std::string& fisherd, int count)
      : server_({fisherd}, Transport::kTcp), trainer_(Options(count)) {}

  void Step() {
    trainer_.Push();
    trainer_.Await();
  }

 private:
  OurOptions Options(int count) const {
    Client client = Client::FromChannel(OwnChannel(server_.address()));
    CreateFactors(client, count, {});
    OurOptions options = {.address = server_.address(), .batch_bytes = kBatchBytes};
    for (int i = 0; i < kUpdated; ++i) options.factors.push_back(i * (count / kUpdated));
    return options;
  }

  ServerProcess server_;
  OurTrainer trainer_;
};

}  // namespace

FactorsResult MeasureFactors(const std::string& fisherd, bool quick) {
  Contestant few(fisherd, kUpdated);
  Contestant many(fisherd, kMany);
  std::vector<double> few_seconds, many_seconds;
  for (int round = -10; round < (quick ? 100 : 300); ++round) {
    const double of_few = Seconds([&] { few.Step(); });
    const double of_many = Seconds([&] { many.Step(); });
    if (round < 0) continue;  // warms up
    few_seconds.push_back(of_few);
    many_seconds.push_back(of_many);
  }
  return {.updated = kUpdated,
          .many = kMany,
          .few_seconds = Median(few_seconds),
          .many_seconds = Median(many_seconds)};
}

void PrintFactors(const FactorsResult& result) {
  absl::PrintF("a step of %d factors: %.2f ms where there are no others, %.2f ms among %d\n",
               result.updated, 1e3 * result.few_seconds, 1e3 * result.many_seconds, result.many);
  std::fflush(stdout);
}

std::vector<Claim> FactorsClaims(const FactorsResult& result) {
  return {{.what = absl::StrCat("a step among ", result.many,
                                " factors / one of a server that has ", "only those of the step"),
           .figure = result.many_seconds / result.few_seconds,
           .bound = 1.2,
           .at_least = false,
           .cases = 1}};
}

std::string FactorsJson(const FactorsResult& result, const std::vector<Claim>& claims) {
  return absl::StrCat("{\"factors\": ", result.many, ", \"updated\": ", result.updated,
                      ", \"step_ms\": ", Number(1e3 * result.many_seconds),
                      ", \"alone_ms\": ", Number(1e3 * result.few_seconds),
                      ",\n\"claims\": ", JsonList(claims, ClaimObject), "}\n");
}

}  // namespace fisherd::bench
