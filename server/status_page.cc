#include "server/status_page.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/factor_page.h"
#include "server/html.h"
#include "server/process_stats.h"
#include "version.h"

namespace fisherd::server {
namespace {

std::string BudgetFact(std::string_view name, const core::ByteBudget& budget) {
  const int64_t used = budget.used();
  const std::string text = absl::StrCat(HumanBytes(used), " of ", HumanBytes(budget.limit()));
  const double share = static_cast<double>(used) / static_cast<double>(budget.limit());
  return Fact(name, absl::StrCat(text, Meter(share, text)));
}

std::string Alarming(int64_t count) {
  return count == 0 ? "0" : absl::StrCat("<span class=\"bad\">", count, "</span>");
}

int StatusOf(const absl::Status& status) {
  if (status.code() == absl::StatusCode::kNotFound) return 404;
  return status.code() == absl::StatusCode::kInvalidArgument ? 400 : 500;
}

// What matters most comes first; a narrow screen does without the last.
constexpr char kColumns[] =
    "<th scope=\"col\">name</th><th scope=\"col\">steps/s</th><th scope=\"col\">lately</th>"
    "<th scope=\"col\">steps</th><th scope=\"col\" class=\"wide\">partial</th>"
    "<th scope=\"col\">failed</th><th scope=\"col\">updated</th>"
    "<th scope=\"col\">memory</th><th scope=\"col\" class=\"wide\">shape</th>"
    "<th scope=\"col\" class=\"wide\">type</th><th scope=\"col\" class=\"wide\">towers</th>";

}  // namespace

std::string StatusPages::Summary() const {
  const std::string why_not = why_not_ready_();
  const ProcessStats process = GetProcessStats();
  const double uptime = absl::ToUnixMillis(absl::Now()) / 1e3 - process.start_time;
  const core::Activity& activity = registry_.activity();
  std::string html = absl::StrCat(
      "<dl class=\"facts\">",
      Fact("state", why_not.empty()
                        ? "serving"
                        : absl::StrCat("<span class=\"bad\">", Escape(why_not), "</span>")),
      Fact("version", Escape(kVersion)), Fact("backend", Escape(backend_)),
      Fact("up", HumanSeconds(uptime)),
      Fact("steps",
           absl::StrCat(activity.steps_whole.load(), " whole, ", activity.steps_partial.load(),
                        " partial, ", activity.steps_failed.load(), " failed")),
      Fact("memory", HumanBytes(process.resident_bytes)),
      BudgetFact("factors and results", registry_.state_budget()),
      BudgetFact("batches of open steps", registry_.batch_budget()));
  for (const auto& home : registry_.placement().devices()) {
    html += BudgetFact(Escape(home->backend->name()), home->budget);
    if (!home->backend->Check().ok()) html += Fact("failed", "<span class=\"bad\">yes</span>");
  }
  if (const auto damaged = static_cast<int64_t>(registry_.damaged()); damaged > 0) {
    html += Fact("damaged factors", Alarming(damaged));
  }
  return html + "</dl>\n";
}

std::string StatusPages::FactorRow(const core::FactorInfo& info) {
  const std::vector<double> rates = RatesOf(history_.Of(info.name));
  const std::string rate = rates.empty() ? "–" : HumanNumber(rates.back());
  return absl::StrCat(
      "<tr><th scope=\"row\"><a href=\"/statusz/factor?name=", EncodeQuery(info.name), "\">",
      Escape(info.name), "</a></th><td>", rate, "</td><td>",
      Sparkline(rates, absl::StrCat("steps a second, now ", rate)), "</td><td>",
      info.steps_committed, "</td><td class=\"wide\">", info.steps_partial, "</td><td>",
      Alarming(info.steps_failed), "</td><td>", AgeOf(info), "</td><td>",
      HumanBytes(info.state_bytes + info.pinned_bytes + info.result_bytes),
      "</td><td class=\"wide\">", ShapeOf(info), "</td><td class=\"wide\">", TypeOf(info),
      "</td><td class=\"wide\">", info.towers.size(), "</td></tr>\n");
}

HttpServer::Response StatusPages::Overview(const HttpServer::Request& request) {
  const std::string prefix = request.Get("prefix");
  const std::string after = request.Get("after");
  std::string html = Summary();
  absl::StrAppend(&html,
                  "<h2>Factors</h2><form action=\"/statusz\" role=\"search\">"
                  "<label for=\"prefix\">names that start with</label>"
                  "<input id=\"prefix\" name=\"prefix\" value=\"",
                  Escape(prefix), "\"><button>show</button></form>\n");
  const auto factors = registry_.List(prefix, after, kFactorsPerPage + 1);
  if (factors.empty()) {
    absl::StrAppend(&html, "<p class=\"soft\">There are none.</p>\n");
    return HtmlPage("Status", html);
  }
  absl::StrAppend(&html,
                  "<div class=\"scroll\" role=\"region\" aria-label=\"Factors\" tabindex=\"0\">"
                  "<table><thead><tr>",
                  kColumns, "</tr></thead><tbody>\n");
  const size_t shown = std::min(factors.size(), kFactorsPerPage);
  for (size_t i = 0; i < shown; ++i) html += FactorRow(factors[i]->Describe());
  html += "</tbody></table></div>\n";
  const std::string first = absl::StrCat("/statusz?prefix=", EncodeQuery(prefix));
  html += "<nav aria-label=\"Pages\">";
  if (!after.empty()) absl::StrAppend(&html, "<a href=\"", first, "\">from the first</a>");
  if (factors.size() > shown) {
    absl::StrAppend(&html, "<a href=\"", first,
                    "&amp;after=", EncodeQuery(factors[shown - 1]->name()), "\">the next ",
                    kFactorsPerPage, "</a>");
  }
  html += "</nav>\n";
  return HtmlPage("Status", html);
}

HttpServer::Response StatusPages::Factor(const HttpServer::Request& request) {
  const std::string name = request.Get("name");
  const auto factor = registry_.Find(name);
  if (!factor.ok()) {
    return HtmlPage(name.empty() ? "No name" : name,
                    absl::StrCat("<p>", Escape(std::string(factor.status().message())), "</p>"),
                    StatusOf(factor.status()));
  }
  return FactorPage(**factor, registry_.dampings(), history_.Of(name));
}

}  // namespace fisherd::server
