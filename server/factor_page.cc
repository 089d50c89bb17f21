#include "server/factor_page.h"

#include <algorithm>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "core/clock.h"
#include "server/covariance_figures.h"
#include "server/html.h"

namespace fisherd::server {
namespace {

// So long a page waits for a step.
constexpr absl::Duration kPatience = absl::Milliseconds(200);

std::string NameOf(const core::RefreshPolicy& policy) {
  switch (policy.kind) {
    case core::RefreshKind::kOnRead:
      return "when it is read";
    case core::RefreshKind::kEveryNSteps:
      return policy.steps == 1 ? "every step" : absl::StrCat("every ", policy.steps, " steps");
    case core::RefreshKind::kOnRequest:
      break;
  }
  return "when it is asked for";
}

const char* NameOf(core::DurabilityLevel level) {
  switch (level) {
    case core::DurabilityLevel::kSnapshot:
      return "snapshot";
    case core::DurabilityLevel::kSync:
      return "sync";
    case core::DurabilityLevel::kUnset:
    case core::DurabilityLevel::kMemory:
      break;
  }
  return "memory";
}

std::string NameOf(const core::Version& version) {
  return absl::StrCat("step ", version.step, " of epoch ", version.epoch);
}

std::string TimeoutOf(const core::FactorSpec& spec) {
  if (spec.gather_timeout == absl::InfiniteDuration()) return "none";
  return absl::StrCat(HumanSeconds(absl::ToDoubleSeconds(spec.gather_timeout)), ", then ",
                      spec.gather_policy == core::GatherPolicy::kPartial ? "partial" : "failed");
}

void AddFacts(const core::Factor& factor, const core::FactorInfo& info, std::string& html) {
  const core::FactorSpec& spec = info.spec;
  absl::StrAppend(
      &html, "<dl class=\"facts\">", Fact("kind", Escape(factor.kind().name())),
      Fact("shape", absl::StrCat(ShapeOf(info), ", ", TypeOf(info))),
      Fact("steps committed", absl::StrCat(info.steps_committed)),
      Fact("of them partial", absl::StrCat(info.steps_partial)),
      Fact("steps failed", absl::StrCat(info.steps_failed)), Fact("last update", AgeOf(info)),
      Fact("next step", absl::StrCat(info.next, ", open through ", info.open_through)),
      Fact("durable through", absl::StrCat(info.durable, " (", NameOf(spec.durability), ")")),
      Fact("version", NameOf(info.version)),
      Fact("incarnation", absl::StrCat(info.version.incarnation)));
  if (info.label != 0) html += Fact("the trainer's step", absl::StrCat(info.label));
  absl::StrAppend(
      &html, Fact("effective weight", HumanNumber(info.total_weight)),
      Fact("average", spec.zero_debias                                            ? "zero-debiased"
                      : spec.initial_covariance == core::InitialCovariance::kOnes ? "from ones"
                                                                                  : "from zeros"),
      Fact("towers",
           absl::StrCat(info.towers.size(), spec.update_mode == core::UpdateMode::kAsynchronous
                                                ? ", asynchronous"
                                                : ", synchronous")),
      Fact("towers weigh", spec.tower_weighting == core::TowerWeighting::kExampleWeighted
                               ? "by examples"
                               : "the same"),
      Fact("sources", absl::StrCat(spec.sources)),
      Fact("window", absl::StrCat(spec.window, spec.window == 1 ? " step" : " steps")),
      Fact("gather timeout", TimeoutOf(spec)), Fact("backend", Escape(info.backend)),
      Fact("batches held", absl::StrCat(info.held_batches, ", ", HumanBytes(info.held_bytes))),
      Fact("memory",
           absl::StrCat(HumanBytes(info.state_bytes), " state, ", HumanBytes(info.result_bytes),
                        " results, ", HumanBytes(info.pinned_bytes), " pinned")),
      "</dl>\n");
}

void AddCovariance(core::Factor& factor, std::string& html) {
  html += "<section><h2>Covariance</h2>";
  const auto image = factor.AwaitImage(kPatience);
  if (!image.ok()) {
    absl::StrAppend(&html, "<p>Not shown: ", Escape(std::string(image.status().message())),
                    absl::IsUnavailable(image.status()) ? ": load the page again" : "",
                    ".</p></section>\n");
    return;
  }
  const CovarianceSketch sketch(*image->state, image->divisor());
  absl::StrAppend(&html, HeatMap(sketch), "</section>\n<section><h2>Its entries</h2>",
                  Histogram(sketch), "</section>\n");
}

// Steps a second over time.
void AddHistory(const std::vector<FactorHistory::Sample>& history, std::string& html) {
  html += "<section><h2>Steps</h2>";
  const std::vector<double> rates = RatesOf(history);
  if (rates.empty()) {
    html += "<p class=\"soft\">Looked at for too short a time.</p></section>\n";
    return;
  }
  constexpr double kLeft = 40;
  constexpr double kRight = 384;
  constexpr double kTop = 12;
  constexpr double kFloor = 140;
  const auto seconds = [&](size_t i) {
    return absl::ToDoubleSeconds(history[i].when - history.front().when);
  };
  const double span = std::max(seconds(history.size() - 1), 1e-9);
  const double most = *std::max_element(rates.begin(), rates.end());
  const double top = most > 0 ? most : 1;
  // A rate is of the time between two samples.
  std::string line;
  for (size_t i = 0; i < rates.size(); ++i) {
    const double y = kFloor - (kFloor - kTop) * rates[i] / top;
    for (const size_t end : {i, i + 1}) {
      absl::StrAppendFormat(&line, "%.1f,%.1f ", kLeft + (kRight - kLeft) * seconds(end) / span, y);
    }
  }
  const int64_t steps = history.back().steps - history.front().steps;
  const std::string what =
      absl::StrCat(steps, steps == 1 ? " step" : " steps", " in the last ", HumanSeconds(span),
                   "; now ", HumanNumber(rates.back()), " a second");
  absl::StrAppendFormat(&html,
                        "<figure><svg role=\"img\" aria-label=\"%s\" viewBox=\"0 0 384 164\" "
                        "width=\"384\" height=\"164\">",
                        what);
  for (const double share : {0.0, 0.5, 1.0}) {
    const double y = kFloor - (kFloor - kTop) * share;
    absl::StrAppendFormat(&html, "<path class=\"grid\" d=\"M%.0f %.1fH%.0f\"/>", kLeft, y, kRight);
    absl::StrAppendFormat(
        &html, "<text class=\"axis\" x=\"%.0f\" y=\"%.1f\" text-anchor=\"end\">%s</text>",
        kLeft - 6, y + 4, HumanNumber(share * top));
  }
  absl::StrAppendFormat(
      &html,
      "<polygon class=\"area\" points=\"%.0f,%.0f %s%.0f,%.0f\"/><polyline class=\"spark\" "
      "points=\"%s\"/>"
      "<text class=\"axis\" x=\"%.0f\" y=\"158\">%s ago</text>"
      "<text class=\"axis\" x=\"%.0f\" y=\"158\" text-anchor=\"end\">now</text></svg>"
      "<figcaption>Steps a second: %s.</figcaption></figure></section>\n",
      kLeft, kFloor, line, kRight, kFloor, line, kLeft, HumanSeconds(span), kRight, what);
}

void AddRegistrations(const core::FactorInfo& info, const core::DampingTable& dampings,
                      std::string& html) {
  html += "<h2>Registered results</h2>";
  if (info.registrations.empty()) {
    html += "<p class=\"soft\">There are none.</p>\n";
    return;
  }
  html +=
      "<div class=\"scroll\" role=\"region\" aria-label=\"Registered results\" tabindex=\"0\">"
      "<table><thead><tr><th scope=\"col\">operator</th>"
      "<th scope=\"col\">computed</th><th scope=\"col\">from step</th>"
      "<th scope=\"col\">with damping</th><th scope=\"col\">damping now</th></tr></thead><tbody>";
  for (const core::RegistrationInfo& registration : info.registrations) {
    const auto now = dampings.Resolve(registration.op.damping);
    absl::StrAppend(
        &html, "<tr><th scope=\"row\">", Escape(core::Describe(registration.op)), "</th><td>",
        NameOf(registration.policy), "</td><td>",
        registration.computed_from ? absl::StrCat(registration.computed_from->step) : "not yet",
        "</td><td>", registration.damping ? HumanNumber(*registration.damping) : "–", "</td><td>",
        now.ok() ? HumanNumber(*now) : "not set", "</td></tr>");
  }
  html += "</tbody></table></div>\n";
}

void AddTowers(const core::FactorInfo& info, std::string& html) {
  html +=
      "<h2>Towers</h2><div class=\"scroll\" role=\"region\" aria-label=\"Towers\" tabindex=\"0\">"
      "<table><thead><tr><th scope=\"col\">tower</th>"
      "<th scope=\"col\">stream</th><th scope=\"col\">received through "
      "step</th></tr></thead><tbody>";
  constexpr size_t kMost = 64;
  for (size_t i = 0; i < std::min(info.towers.size(), kMost); ++i) {
    absl::StrAppend(&html, "<tr><th scope=\"row\">", i, "</th><td>",
                    info.towers[i].claimed ? "open" : "none", "</td><td>",
                    info.towers[i].received_through, "</td></tr>");
  }
  html += "</tbody></table></div>\n";
  if (info.towers.size() > kMost) {
    absl::StrAppend(&html, "<p class=\"soft\">and ", info.towers.size() - kMost, " more</p>\n");
  }
}

}  // namespace

std::string ShapeOf(const core::FactorInfo& info) {
  return absl::StrCat(info.shape.rows, " × ", info.shape.cols);
}

const char* TypeOf(const core::FactorInfo& info) {
  return info.shape.dtype == core::DataType::kFloat64 ? "float64" : "float32";
}

std::string AgeOf(const core::FactorInfo& info) {
  if (info.updated == absl::InfinitePast()) return "never";
  return absl::StrCat(HumanSeconds(absl::ToDoubleSeconds(core::SteadyNow() - info.updated)),
                      " ago");
}

HttpServer::Response FactorPage(core::Factor& factor, const core::DampingTable& dampings,
                                const std::vector<FactorHistory::Sample>& history) {
  const core::FactorInfo info = factor.Describe();
  std::string html;
  AddFacts(factor, info, html);
  html += "<div class=\"pair\">";
  AddCovariance(factor, html);
  AddHistory(history, html);
  html += "</div>\n";
  AddRegistrations(info, dampings, html);
  AddTowers(info, html);
  return HtmlPage(info.name, html);
}

}  // namespace fisherd::server
