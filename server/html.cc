#include "server/html.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "server/status.h"

namespace fisherd::server {
namespace {

constexpr char kStyle[] = R"(
:root{color-scheme:light dark;--text:#1b1f24;--soft:#57606a;--line:#d0d7de;--back:#fff;--panel:#f6f8fa;--accent:#0b62b8;--bad:#a40e26}
@media(prefers-color-scheme:dark){:root{--text:#e6edf3;--soft:#9aa4ae;--line:#30363d;--back:#0d1117;--panel:#161b22;--accent:#6cb6ff;--bad:#ff8a80}}
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
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(10.5rem,1fr));gap:.5rem;margin:0}
.facts>div{background:var(--panel);border:1px solid var(--line);border-radius:6px;padding:.5rem .75rem;min-width:0}
.facts dt{color:var(--soft);font-size:.8rem}
.facts dd{margin:0;hyphens:auto;font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:6px}
table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{padding:.35rem .75rem;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child td{border-bottom:0}
th{font-size:.8rem;color:var(--soft);background:var(--panel);font-weight:600}
th:first-child,td:first-child,.left{text-align:left}
td:first-child{white-space:normal;overflow-wrap:anywhere;min-width:9rem}
form{display:flex;gap:.5rem;margin:.5rem 0}
input,button{font:inherit;color:inherit;background:var(--back);border:1px solid var(--line);border-radius:6px;padding:.25rem .6rem}
input{flex:1;min-width:0;max-width:24rem}
svg{display:block;max-width:100%;height:auto}
.spark{stroke:var(--accent);fill:none;stroke-width:1.5}
.bar{fill:var(--accent)}
.axis{fill:var(--soft);font-size:11px}
.meter{height:.4rem;background:var(--line);border-radius:3px;overflow:hidden;margin-top:.3rem}
.meter i{display:block;height:100%;background:var(--accent)}
figure{margin:0}
figcaption{color:var(--soft);font-size:.85rem;margin-top:.4rem}
.pair{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:1.5rem}
)";

// Of an address that ends with the headers that keep strangers out of the page.
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
  return {
      .status = status,
      .content_type = "text/html; charset=utf-8",
      .body = absl::StrCat("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">"
                           "<meta name=\"viewport\" content=\"width=device-width\"><title>",
                           escaped, " · fisherd</title><style>", kStyle,
                           "</style></head><body><header><a href=\"/statusz\">fisherd</a>"
                           "<span class=\"soft\">the curvature server</span></header><main><h1>",
                           escaped, "</h1>\n", std::string(main), "</main></body></html>\n"),
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
  return absl::StrFormat("%.3g", number);
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
      Escape(label), "\"><polyline class=\"spark\" points=\"", points, "\"/></svg>");
}

std::string Meter(double share, std::string_view label) {
  const double percent = 100 * std::clamp(share, 0.0, 1.0);
  return absl::StrFormat(
      "<div class=\"meter\" role=\"img\" aria-label=\"%s\">"
      "<i style=\"width:%.1f%%\"></i></div>",
      Escape(label), percent);
}

}  // namespace fisherd::server
