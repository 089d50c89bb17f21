#include "server/status_page.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "core/clock.h"
#include "server/covariance_figures.h"
#include "server/html.h"
#include "server/process_stats.h"
#include "version.h"

namespace fisherd::server {
namespace {

// "fact" as a term and its description.
void AddFact(std::string& html, std::string_view name, const std::string& value_html) {
  absl::StrAppend(&html, "<div><dt>", Escape(name), "</dt><dd>", value_html, "</dd></div>");
}

void AddBudget(std::string& html, std::string_view name, const core::ByteBudget& budget) {
  const std::string text =
      absl::StrCat(HumanBytes(budget.used()), " of ", HumanBytes(budget.limit()));
  const double share = static_cast<double>(budget.used()) / static_cast<double>(budget.limit());
  AddFact(html, name, absl::StrCat(text, Meter(share, text)));
}

std::string ShapeOf(const core::FactorInfo& info) {
  return absl::StrCat(info.shape.rows, " × ", info.shape.cols);
}

const char* TypeOf(const core::FactorInfo& info) {
  return info.shape.dtype == core::DataType::kFloat64 ? "float64" : "float32";
}

std::string AgeOf(const core::FactorInfo& info) {
  if (info.updated == absl::InfinitePast()) return "never";
  return HumanSeconds(absl::ToDoubleSeconds(core::SteadyNow() - info.updated));
}

std::string LinkTo(const std::string& factor) {
  return absl::StrCat("<a href=\"/statusz/factor?name=", EncodeQuery(factor), "\">", Escape(factor),
                      "</a>");
}

const char* NameOf(core::RefreshKind kind) {
  switch (kind) {
    case core::RefreshKind::kOnRead:
      return "when it is read";
    case core::RefreshKind::kEveryNSteps:
      return "every few steps";
    default:
      return "when it is asked for";
  }
}

const char* NameOf(core::DurabilityLevel level) {
  switch (level) {
    case core::DurabilityLevel::kSnapshot:
      return "snapshot";
    case core::DurabilityLevel::kSync:
      return "sync";
    default:
      return "memory";
  }
}

void AddRegistrations(const core::FactorInfo& info, std::string& html) {
  if (info.registrations.empty()) return;
  html +=
      "<h2>Registered results</h2><div class=\"scroll\"><table><thead><tr>"
      "<th scope=\"col\">operator</th><th scope=\"col\">computed</th>"
      "<th scope=\"col\">from step</th><th scope=\"col\">damping</th></tr></thead><tbody>";
  for (const core::RegistrationInfo& registration : info.registrations) {
    absl::StrAppend(
        &html, "<tr><td>", Escape(core::Describe(registration.op)), "</td><td>",
        NameOf(registration.policy.kind), "</td><td>",
        registration.computed_from ? absl::StrCat(registration.computed_from->step) : "–",
        "</td><td>", registration.damping ? HumanNumber(*registration.damping) : "–", "</td></tr>");
  }
  html += "</tbody></table></div>";
}

void AddTowers(const core::FactorInfo& info, std::string& html) {
  html +=
      "<h2>Towers</h2><div class=\"scroll\"><table><thead><tr><th scope=\"col\">tower</th>"
      "<th scope=\"col\">stream</th><th scope=\"col\">received through "
      "step</th></tr></thead><tbody>";
  constexpr size_t kMost = 64;
  for (size_t i = 0; i < std::min(info.towers.size(), kMost); ++i) {
    absl::StrAppend(&html, "<tr><td>", i, "</td><td>", info.towers[i].claimed ? "open" : "none",
                    "</td><td>", info.towers[i].received_through, "</td></tr>");
  }
  html += "</tbody></table></div>";
  if (info.towers.size() > kMost) {
    absl::StrAppend(&html, "<p class=\"soft\">and ", info.towers.size() - kMost, " more</p>");
  }
}

}  // namespace

std::string StatusPages::FactorRow(const core::FactorInfo& info) const {
  const std::vector<double> rates = history_.RatesOf(info.name);
  const std::string rate = rates.empty() ? "–" : HumanNumber(rates.back());
  return absl::StrCat(
      "<tr><td>", LinkTo(info.name), "</td><td>", ShapeOf(info), "</td><td>", TypeOf(info),
      "</td><td>", info.towers.size(), "</td><td>", info.steps_committed, "</td><td>",
      info.steps_failed == 0 ? "0"
                             : absl::StrCat("<span class=\"bad\">", info.steps_failed, "</span>"),
      "</td><td>", rate, "</td><td>", Sparkline(rates, absl::StrCat("steps a second, now ", rate)),
      "</td><td>", HumanBytes(info.state_bytes + info.pinned_bytes + info.result_bytes),
      "</td><td>", AgeOf(info), "</td></tr>\n");
}

HttpServer::Response StatusPages::Overview(const HttpServer::Request& request) const {
  const std::string prefix = request.Get("prefix");
  const std::string why_not = readiness_.why_not();
  const ProcessStats process = GetProcessStats();
  const double uptime = absl::ToUnixMillis(absl::Now()) / 1e3 - process.start_time;

  std::string html = "<dl class=\"facts\">";
  AddFact(html, "state",
          why_not.empty() ? "serving"
                          : absl::StrCat("<span class=\"bad\">", Escape(why_not), "</span>"));
  AddFact(html, "version", Escape(kVersion));
  AddFact(html, "backend", Escape(backend_));
  AddFact(html, "up", HumanSeconds(uptime));
  AddFact(html, "memory", HumanBytes(process.resident_bytes));
  AddBudget(html, "factors and results", registry_.state_budget());
  AddBudget(html, "batches of open steps", registry_.batch_budget());
  const core::Activity& activity = registry_.activity();
  AddFact(html, "steps",
          absl::StrCat(activity.steps_whole.load(), " whole, ", activity.steps_partial.load(),
                       " partial, ", activity.steps_failed.load(), " failed"));
  html += "</dl>\n<h2>Factors</h2><form action=\"/statusz\"><label for=\"prefix\">prefix</label>";
  absl::StrAppend(&html, "<input id=\"prefix\" name=\"prefix\" value=\"", Escape(prefix),
                  "\"><button>show</button></form>");

  const auto factors = registry_.List(prefix, request.Get("after"), kFactorsPerPage + 1);
  if (factors.empty()) {
    html += "<p class=\"soft\">There are none.</p>";
    return HtmlPage("Status", html);
  }
  html += "<div class=\"scroll\"><table><thead><tr>";
  for (const char* column : {"name", "shape", "type", "towers", "steps", "failed", "steps/s",
                             "lately", "memory", "last update"}) {
    absl::StrAppend(&html, "<th scope=\"col\">", column, "</th>");
  }
  html += "</tr></thead><tbody>\n";
  const size_t shown = std::min(factors.size(), kFactorsPerPage);
  for (size_t i = 0; i < shown; ++i) html += FactorRow(factors[i]->Describe());
  html += "</tbody></table></div>";
  if (factors.size() > kFactorsPerPage) {
    absl::StrAppend(&html, "<p><a href=\"/statusz?prefix=", EncodeQuery(prefix),
                    "&amp;after=", EncodeQuery(factors[kFactorsPerPage - 1]->name()),
                    "\">more</a></p>");
  }
  return HtmlPage("Status", html);
}

HttpServer::Response StatusPages::Factor(const HttpServer::Request& request) const {
  const std::string name = request.Get("name");
  const auto factor = registry_.Find(name);
  if (!factor.ok()) {
    return HtmlPage(name.empty() ? "No name" : name,
                    absl::StrCat("<p>", Escape(std::string(factor.status().message())), "</p>"),
                    404);
  }
  const core::FactorInfo info = (*factor)->Describe();
  std::string html = "<dl class=\"facts\">";
  AddFact(html, "kind", Escape((*factor)->kind().name()));
  AddFact(html, "shape", absl::StrCat(ShapeOf(info), ", ", TypeOf(info)));
  AddFact(html, "steps committed", absl::StrCat(info.steps_committed));
  AddFact(html, "partial, failed", absl::StrCat(info.steps_partial, ", ", info.steps_failed));
  AddFact(html, "next step", absl::StrCat(info.next));
  AddFact(html, "durable through",
          absl::StrCat(info.durable, " (", NameOf(info.spec.durability), ")"));
  AddFact(html, "incarnation", absl::StrCat(info.version.incarnation));
  AddFact(html, "effective weight", HumanNumber(info.total_weight));
  AddFact(html, "last update", AgeOf(info));
  AddFact(html, "batches held", absl::StrCat(info.held_batches, ", ", HumanBytes(info.held_bytes)));
  AddFact(html, "memory",
          absl::StrCat(HumanBytes(info.state_bytes), " state, ", HumanBytes(info.result_bytes),
                       " results, ", HumanBytes(info.pinned_bytes), " pinned"));
  const std::vector<double> rates = history_.RatesOf(name);
  AddFact(html, "steps a second",
          absl::StrCat(rates.empty() ? "–" : HumanNumber(rates.back()),
                       Sparkline(rates, "steps a second, lately")));
  html += "</dl>\n<h2>Covariance</h2>";
  const auto image = (*factor)->TryImage();
  if (image.ok()) {
    const bool debias = image->spec.zero_debias && image->total_weight > 0;
    const CovarianceSketch sketch(*image->state, debias ? image->total_weight : 1);
    absl::StrAppend(&html, "<div class=\"pair\">", HeatMap(sketch), Histogram(sketch), "</div>");
  } else {
    html += "<p class=\"soft\">A step is just being written; look again.</p>";
  }
  AddRegistrations(info, html);
  AddTowers(info, html);
  return HtmlPage(name, html);
}

}  // namespace fisherd::server
