#include "tests/bench/core/json.h"

#include "absl/strings/str_cat.h"
#include "tests/bench/core/json_object.h"

namespace fisherd::bench {
namespace {

constexpr double kMs = 1e3;

Object MachineObject(const Machine& machine, const Peers& peers) {
  Object object;
  object.Text("processor", machine.processor)
      .Put("cores", machine.cores)
      .Put("last_cache_bytes", machine.last_cache_bytes)
      .Put("load_before", machine.load)
      .Text("target", machine.target);
  const std::vector<std::pair<int, Peak>> peaks(machine.peaks.begin(), machine.peaks.end());
  object.Put("peaks", JsonList(peaks, [](const std::pair<int, Peak>& peak) {
               return Object()
                   .Put("threads", peak.first)
                   .Put("float32_gflops", peak.second.float_flops / 1e9)
                   .Put("float64_gflops", peak.second.double_flops / 1e9)
                   .Put("triad_gbytes_per_second", peak.second.bandwidth / 1e9);
             }));
  Object libraries;
  if (peers.openblas) libraries.Text("openblas", peers.openblas->description());
  if (peers.blis) libraries.Text("blis", peers.blis->description());
  if (!peers.torch.empty()) {
    libraries.Text("torch", peers.torch.begin()->second->description());
  }
  return object.Put("libraries", libraries.json());
}

Object ResultObject(const Result& result) {
  const Case& sizes = result.sizes;
  Object peers;
  for (const auto& [name, seconds] : result.peers) peers.Put(name.c_str(), seconds * kMs);
  Object object;
  object.Text("name", sizes.Name())
      .Put("rows", sizes.rows)
      .Put("inputs", sizes.inputs)
      .Put("outputs", sizes.outputs)
      .Put("bias", sizes.bias)
      .Put("sources", sizes.sources)
      .Put("towers", sizes.towers)
      .Put("threads", sizes.threads)
      .Text("dtype", "float32")
      .Put("ours_ms", result.ours * kMs)
      .Put("ingest_share", result.ingest_share)
      .Put("beside_ms", result.beside * kMs)
      .Put("floor_ms", result.floor * kMs)
      .Put("peers", peers.json());
  if (result.joined > 0) object.Put("one_tower_ms", result.joined * kMs);
  return object;
}

Object MultiplyObject(const MultiplyResult& result) {
  return Object()
      .Put("exponent", result.exponent)
      .Put("threads", result.threads)
      .Put("ms", result.seconds * kMs)
      .Put("gbytes_per_second", result.bandwidth / 1e9)
      .Put("triad_share", result.triad_share);
}

}  // namespace

std::string ToJson(const Machine& machine, const Peers& peers, const Measurements& measured,
                   const std::vector<Claim>& claims) {
  const std::string step_errors = JsonList(measured.step_errors, [](const StepError& error) {
    return Object().Put("rows", error.rows).Put("relative", error.relative);
  });
  const std::string power_errors = JsonList(measured.power_errors, [](const PowerError& error) {
    return Object()
        .Text("dtype", error.dtype)
        .Put("exponent", error.exponent)
        .Put("relative", error.relative)
        .Put("ulps", error.ulps);
  });
  return absl::StrCat("{\"machine\": ", MachineObject(machine, peers).json(),
                      ",\n\"results\": ", JsonList(measured.results, ResultObject),
                      ",\n\"multiply\": ", JsonList(measured.multiplies, MultiplyObject),
                      ",\n\"step_errors\": ", step_errors, ",\n\"power_errors\": ", power_errors,
                      ",\n\"claims\": ", JsonList(claims, ClaimObject), "}\n");
}

}  // namespace fisherd::bench
