#include "client/trainer/svg.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"

namespace fisherd::trainer {
namespace {

constexpr int kWidth = 960, kHeight = 440;
constexpr int kPanelWidth = 400, kPanelHeight = 300, kTop = 48;

// Okabe and Ito's colours, told apart by every eye and on both grounds.
constexpr const char* kColours[] = {"#8c8c8c", "#56b4e9", "#e69f00",
                                    "#009e73", "#cc79a7", "#d55e00"};

constexpr char kStyle[] = R"(<style>
  text { font: 13px system-ui, sans-serif; fill: #24292f }
  .title { font-size: 15px; font-weight: 600 }
  .ground { fill: #ffffff } .grid { stroke: #d0d7de; stroke-width: 1 }
  .curve { fill: none; stroke-width: 2; stroke-linejoin: round }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .ground { fill: #0d1117 } .grid { stroke: #30363d }
  }
</style>
)";

struct Tick {
  double value;
  std::string label;
};

struct Panel {
  std::string title;
  int left;
  double bottom, top;  // of the axis; logarithmic
  std::vector<Tick> ticks;
  std::function<double(const Epoch&)> value;
};

double Height(const Panel& panel, double value) {
  const auto [least, most] = std::minmax(panel.bottom, panel.top);
  const double clamped = std::clamp(value, least, most);
  return kTop + kPanelHeight * std::log(clamped / panel.top) / std::log(panel.bottom / panel.top);
}

Panel LossPanel(std::span<const RunResult> runs) {
  Panel panel = {"training loss (nats, log)",
                 64,
                 1,
                 1,
                 {},
                 [](const Epoch& epoch) {
                   return epoch.train.loss; }};
  double least = 1, most = 1;
  for (const RunResult& run : runs) {
    for (const Epoch& epoch : run.epochs) {
      if (epoch.train.loss > 0) least = std::min(least, epoch.train.loss);
      if (std::isfinite(epoch.train.loss)) most = std::max(most, epoch.train.loss);
    }
  }
  panel.bottom = std::pow(10, std::floor(std::log10(least)));
  panel.top = most;
  for (double tick = panel.bottom; tick <= panel.top; tick *= 10) {
    panel.ticks.push_back({tick, absl::StrFormat("%g", tick)});
  }
  return panel;
}

Panel AccuracyPanel() {
  Panel panel = {"test accuracy (%, log of the rest)",
                 64 + kPanelWidth + 72,
                 1,
                 0.01,
                 {},
                 [](const Epoch& epoch) { return 1 - epoch.test.accuracy; }};
  for (int accuracy : {0, 50, 80, 90, 95, 98, 99}) {
    panel.ticks.push_back({(100 - accuracy) / 100.0, absl::StrFormat("%d", accuracy)});
  }
  return panel;
}

std::string Escape(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"&", "&amp;"}, {"<", "&lt;"}, {">", "&gt;"}});
}

void AppendText(std::string& svg, double x, double y, const char* attributes,
                absl::string_view text) {
  absl::StrAppendFormat(&svg, "<text x=\"%.1f\" y=\"%.1f\"%s>%s</text>\n", x, y, attributes,
                        Escape(text));
}

void AppendPanel(std::string& svg, const Panel& panel, std::span<const RunResult> runs) {
  size_t last = 1;
  for (const RunResult& run : runs) last = std::max(last, run.epochs.size() - 1);
  const auto across = [&](double epoch) { return panel.left + kPanelWidth * epoch / last; };
  AppendText(svg, panel.left, kTop - 16, " class=\"title\"", panel.title);
  for (const Tick& tick : panel.ticks) {
    const double y = Height(panel, tick.value);
    absl::StrAppendFormat(&svg, "<path class=\"grid\" d=\"M%d %.1fh%d\"/>\n", panel.left, y,
                          kPanelWidth);
    AppendText(svg, panel.left - 8, y + 4, " text-anchor=\"end\"", tick.label);
  }
  for (int part = 0; part <= 5; ++part) {
    const size_t epoch = last * part / 5;
    if (part > 0 && epoch == last * (part - 1) / 5) continue;
    AppendText(svg, across(epoch), kTop + kPanelHeight + 20, " text-anchor=\"middle\"",
               absl::StrCat(epoch));
  }
  AppendText(svg, panel.left + kPanelWidth / 2, kTop + kPanelHeight + 40, " text-anchor=\"middle\"",
             "epoch");
  for (size_t i = 0; i < runs.size(); ++i) {
    absl::StrAppendFormat(&svg, "<path class=\"curve\" stroke=\"%s\" d=\"", kColours[i]);
    for (size_t epoch = 0; epoch < runs[i].epochs.size(); ++epoch) {
      const double value = panel.value(runs[i].epochs[epoch]);
      if (std::isnan(value)) break;
      absl::StrAppendFormat(&svg, "%c%.1f %.1f", epoch == 0 ? 'M' : 'L', across(epoch),
                            Height(panel, value));
    }
    svg += "\"/>\n";
  }
}

}  // namespace

std::string CurvesSvg(std::span<const RunResult> runs) {
  std::string svg = absl::StrFormat(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" width=\"%d\" "
      "height=\"%d\" role=\"img\">\n"
      "<title>Training loss and test accuracy by epoch</title>\n%s"
      "<rect class=\"ground\" width=\"%d\" height=\"%d\"/>\n",
      kWidth, kHeight, kWidth, kHeight, kStyle, kWidth, kHeight);
  AppendPanel(svg, LossPanel(runs), runs);
  AppendPanel(svg, AccuracyPanel(), runs);
  for (size_t i = 0; i < runs.size(); ++i) {
    const double x = 64 + 170.0 * i, y = kHeight - 24;
    absl::StrAppendFormat(&svg, "<path class=\"curve\" stroke=\"%s\" d=\"M%g %gh24\"/>\n",
                          kColours[i], x, y);
    AppendText(svg, x + 32, y + 4, "", runs[i].method.name);
  }
  return svg + "</svg>\n";
}

}  // namespace fisherd::trainer
