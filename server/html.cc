#include "server/html.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "server/status.h"

namespace fisherd::server {
namespace {

constexpr char kStyle[] = R"(
:root{color-scheme:light dark;--text:#1b1f24;--soft:#57606a;--line:#d0d7de;--edge:#7d858e;--back:#fff;--panel:#f6f8fa;--accent:#0b62b8;--bad:#a40e26}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9aa4ae;--line:#30363d;--edge:#767e87;--back:#0d1117;--panel:#161b22;--accent:#6cb6ff;--bad:#ff8a80}}
*{box-sizing:border-box}
body{margin:0;background:var(--back);color:var(--text);font:15px/1.5 system-ui,sans-serif}
header,main{max-width:76rem;margin:0 auto;padding:0 1rem}
header{display:flex;gap:.75rem;align-items:baseline;padding-top:1rem}
header a{font-weight:600;color:var(--text);text-decoration:none}
h1{font-size:1.35rem;margin:.5rem 0;overflow-wrap:anywhere}
h2{font-size:1.05rem;margin:1.75rem 0 .5rem}
a{color:var(--accent)}
:focus-visible{outline:2px solid var(--accent);outline-offset:2px}
.soft{color:var(--soft)}
.bad{color:var(--bad);font-weight:600}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(13rem,1fr));gap:.6rem 1.5rem;margin:0;background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:.75rem}
.facts>div{min-width:0}
.facts dt{color:var(--soft);font-size:.8rem}
.facts dd{margin:0;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
section>h2:first-child{margin-top:0}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .75rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tbody tr:last-child>*{border-bottom:0}
thead th{font-size:.8rem;color:var(--soft);background:var(--panel);font-weight:600}
tbody th{font-weight:400;white-space:normal;overflow-wrap:anywhere;min-width:9rem}
th:first-child,.left{text-align:left}
form{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center;margin:.5rem 0}
input,button{font:inherit;color:inherit;background:var(--back);border:1px solid var(--edge);border-radius:6px;padding:.25rem .6rem}
input{flex:1;min-width:0;max-width:24rem}
svg{display:block;max-width:100%}
figure>svg{height:auto}
td svg{margin-left:auto;max-width:none}
.spark{stroke:var(--accent);fill:none;stroke-width:1.5}
.area{fill:var(--accent);opacity:.15}
.bar{fill:var(--accent)}
.axis{fill:var(--soft);font-size:11px}
.axisline{stroke:var(--soft);fill:none}
.grid{stroke:var(--line);fill:none}
.hatch{stroke:var(--soft)}
.legend{display:flex;gap:1rem;width:384px;max-width:100%;margin-top:.4rem;color:var(--soft);font-size:.75rem}
.scale{flex:1}
.scale>svg{width:100%;height:12px}
.scale>div{display:flex;justify-content:space-between}
.meter{height:.4rem;background:var(--line);border-radius:3px;overflow:hidden;margin-top:.3rem}
.meter i{display:block;height:100%;background:var(--accent)}
figure{margin:0}
figcaption{color:var(--soft);font-size:.85rem;margin-top:.4rem;max-width:28rem}
.pair{margin-top:1.75rem;display:grid;grid-template-columns:repeat(auto-fill,minmax(min(22rem,100%),1fr));gap:1.5rem 2rem}
nav{display:flex;gap:1.5rem;margin:.75rem 0}
footer{max-width:76rem;margin:2rem auto 1rem;padding:0 1rem;color:var(--soft);font-size:.85rem}
@media(max-width:40rem){
.facts{grid-template-columns:repeat(auto-fill,minmax(9rem,1fr))}
th,td{padding:.35rem .5rem}
.wide{display:none}
td svg{width:72px}
tbody th{min-width:7rem}
}
)";

// Nothing but the page itself: no script, no other address, in nobody's frame.
constexpr char kHeaders[] =
    "Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'\r\n"
    "X-Frame-Options: DENY\r\n"
    "Referrer-Policy: no-referrer\r\n";

}  // namespace

std::string Escape(std::string_view text) {
  std::string escaped;
  for (const char c : Utf8Prefix(text, text.size())) {
    switch (c) {
      case '&':
        escaped += "&amp;";
        break;
      case '<':
        escaped += "&lt;";
        break;
      case '>':
        escaped += "&gt;";
        break;
      case '"':
        escaped += "&quot;";
        break;
      case '\'':
        escaped += "&#39;";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
          absl::StrAppendFormat(&escaped, "\\x%02x", static_cast<int>(c));
        } else {
          escaped += c;
        }
    }
  }
  return escaped;
}

std::string EncodeQuery(std::string_view text) {
  std::string encoded;
  for (const char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_' || c == '.' ||
        c == '/') {
      encoded += c;
    } else {
      absl::StrAppendFormat(&encoded, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

HttpServer::Response HtmlPage(std::string_view title, std::string_view main, int status) {
  const std::string escaped = Escape(title);
  return {.status = status,
          .content_type = "text/html; charset=utf-8",
          .body = absl::StrCat(
              "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
              "<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>",
              escaped, " · fisherd</title><style>", kStyle,
              "</style></head><body><header><a href=\"/statusz\">fisherd</a>"
              "<span class=\"soft\">the curvature server</span></header><main><h1>",
              escaped, "</h1>\n", std::string(main), "</main><footer>as of ",
              absl::FormatTime("%Y-%m-%d %H:%M:%S UTC", absl::Now(), absl::UTCTimeZone()),
              "</footer></body></html>\n"),
          .headers = kHeaders};
}

std::string HumanBytes(int64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  for (; value >= 1024 && unit + 1 < std::size(kUnits); ++unit) value /= 1024;
  return absl::StrFormat("%.*f %s", unit == 0 || value >= 100 ? 0 : 1, value, kUnits[unit]);
}

std::string HumanNumber(double number) {
  if (!std::isfinite(number)) return "–";
  if (std::abs(number) >= 1000 && std::abs(number) < 1e6) return absl::StrFormat("%.0f", number);
  const std::string text = absl::StrFormat("%.3g", number);
  const size_t e = text.find('e');
  if (e == std::string::npos) return text;
  // C writes 1e+09 and 1e-09.
  const bool negative = text[e + 1] == '-';
  const size_t digit = std::min(text.find_first_not_of('0', e + 2), text.size() - 1);
  return absl::StrCat(text.substr(0, e), negative ? "e-" : "e", text.substr(digit));
}

std::string HumanSeconds(double seconds) {
  if (seconds < 10) return absl::StrFormat("%.1f s", seconds);
  const auto whole = static_cast<int64_t>(seconds);
  if (whole < 60) return absl::StrCat(whole, " s");
  if (whole < 3600) return absl::StrCat(whole / 60, " min ", whole % 60, " s");
  if (whole < 86400) return absl::StrCat(whole / 3600, " h ", whole % 3600 / 60, " min");
  return absl::StrCat(whole / 86400, " d ", whole % 86400 / 3600, " h");
}

std::string Sparkline(const std::vector<double>& values, std::string_view label) {
  constexpr double kWidth = 120;
  constexpr double kHeight = 24;
  if (values.size() < 2) return "<span class=\"soft\">–</span>";
  const double most = std::max(*std::max_element(values.begin(), values.end()), 1e-12);
  std::string points;
  for (size_t i = 0; i < values.size(); ++i) {
    absl::StrAppendFormat(&points, "%.1f,%.1f ", kWidth * i / (values.size() - 1),
                          kHeight - 2 - (kHeight - 4) * values[i] / most);
  }
  return absl::StrCat(
      "<svg role=\"img\" width=\"120\" height=\"24\" viewBox=\"0 0 120 24\" "
      "aria-label=\"",
      Escape(label), "\"><polygon class=\"area\" points=\"0,22 ", points,
      "120,22\"/><polyline class=\"spark\" points=\"", points, "\"/></svg>");
}

std::string Fact(std::string_view term, std::string_view value_html) {
  return absl::StrCat("<div><dt>", Escape(term), "</dt><dd>", std::string(value_html),
                      "</dd></div>");
}

std::string Meter(double share, std::string_view label) {
  const double percent = 100 * std::clamp(share, 0.0, 1.0);
  return absl::StrFormat(
      "<div class=\"meter\" role=\"img\" aria-label=\"%s\">"
      "<i style=\"width:%.1f%%\"></i></div>",
      Escape(label), percent);
}

}  // namespace fisherd::server
