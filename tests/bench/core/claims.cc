#include "tests/bench/core/claims.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>
#include <span>
#include <string>

#include "absl/strings/str_cat.h"

namespace fisherd::bench {
namespace {

struct Figure {
  std::string where;
  double value = 0;
};
using Figures = std::vector<Figure>;

// The figures of those results that have one.
Figures Collect(std::span<const Result> results,
                const std::function<std::optional<double>(const Result&)>& figure) {
  Figures figures;
  for (const Result& result : results) {
    const std::optional<double> value = figure(result);
    if (value && std::isfinite(*value)) figures.push_back({result.sizes.Name(), *value});
  }
  return figures;
}

const Result* Find(std::span<const Result> results, const Case& sizes) {
  const auto found = std::ranges::find(results, sizes, &Result::sizes);
  return found == results.end() ? nullptr : &*found;
}

class List {
 public:
  void Mean(const std::string& what, const Figures& figures, double bound) {
    if (figures.empty()) return;
    double logs = 0;
    for (const Figure& figure : figures) logs += std::log(figure.value);
    claims_.push_back({.what = absl::StrCat(what, ", geometric mean"),
                       .figure = std::exp(logs / figures.size()),
                       .bound = bound,
                       .cases = static_cast<int>(figures.size())});
  }

  void Least(const std::string& what, const Figures& figures, double bound) {
    if (figures.empty()) return;
    const Figure& least = *std::ranges::min_element(figures, {}, &Figure::value);
    Add(what, least, bound, true, figures.size());
  }

  void Most(const std::string& what, const Figures& figures, double bound) {
    if (figures.empty()) return;
    const Figure& most = *std::ranges::max_element(figures, {}, &Figure::value);
    Add(what, most, bound, false, figures.size());
  }

  std::vector<Claim> Take() { return std::move(claims_); }

 private:
  void Add(const std::string& what, const Figure& figure, double bound, bool at_least,
           size_t cases) {
    claims_.push_back({what, figure.value, bound, at_least, figure.where, static_cast<int>(cases)});
  }

  std::vector<Claim> claims_;
};

// Of one number of threads.
void AddSpeed(std::span<const Result> results, const std::string& threads, double mean_bound,
              List& list) {
  const Figures peers = Collect(results, [](const Result& r) { return r.fastest_peer() / r.ours; });
  list.Least(absl::StrCat("fastest peer / ours, ", threads), peers, 0.95);
  list.Mean(absl::StrCat("fastest peer / ours, ", threads), peers, mean_bound);
  list.Mean(absl::StrCat("five passes / ours, ", threads),
            Collect(results, [](const Result& r) { return r.fastest_five_pass() / r.ours; }), 2);
}

void AddFloor(std::span<const Result> results, const std::string& threads, List& list) {
  // By the rows of all towers, in shapes large enough both ways.
  const auto shares = [&](int64_t least, int64_t most) {
    return Collect(results, [=](const Result& r) -> std::optional<double> {
      const int64_t depth = r.sizes.depth();
      const bool large = std::min(r.sizes.inputs, r.sizes.outputs) >= 512;
      if (!large || depth < least || depth > most) return std::nullopt;
      return r.floor / r.ours;
    });
  };
  list.Least(absl::StrCat("floor / ours, from 128 rows, ", threads), shares(128, INT64_MAX), 0.9);
  list.Least(absl::StrCat("floor / ours, 32 to 127 rows, ", threads), shares(32, 127), 0.8);
  list.Least(absl::StrCat("floor / ours, 1 to 8 rows, ", threads), shares(1, 8), 0.7);
}

// A figure of a case and of another one that differs a little.
Figures Compare(std::span<const Result> results, const std::function<bool(const Case&)>& wanted,
                const std::function<Case(Case)>& other,
                const std::function<double(const Result&, const Result&)>& figure) {
  return Collect(results, [&](const Result& r) -> std::optional<double> {
    if (!wanted(r.sizes)) return std::nullopt;
    const Result* than = Find(results, other(r.sizes));
    if (than == nullptr) return std::nullopt;
    return figure(r, *than);
  });
}

void AddStructure(std::span<const Result> results, List& list) {
  list.Least("four products / four sources",
             Compare(
                 results, [](const Case& c) { return c.sources == 4; },
                 [](Case c) { return c.sources = 1, c; },
                 [](const Result& r, const Result& one) { return 4 * one.ours / r.ours; }),
             3);
  list.Most("four towers / one of as many rows",
            Collect(results,
                    [](const Result& r) -> std::optional<double> {
                      if (r.joined == 0) return std::nullopt;
                      return r.ours / r.joined;
                    }),
            1.05);
  list.Least("one thread / two, from 1 GFLOP",
             Compare(
                 results, [](const Case& c) { return c.threads == 2 && c.flops() >= 1e9; },
                 [](Case c) { return c.threads = 1, c; },
                 [](const Result& r, const Result& one) { return one.ours / r.ours; }),
             1.8);
}

void AddPowers(const Measurements& measured, List& list) {
  Figures shares, relative, ulps, step;
  for (const MultiplyResult& r : measured.multiplies) {
    if (r.exponent == -0.75) continue;  // shown, but not promised
    shares.push_back({absl::StrCat("e = ", r.exponent, ", threads ", r.threads), r.triad_share});
  }
  for (const PowerError& e : measured.power_errors) {
    (e.exact ? ulps : relative)
        .push_back(
            {absl::StrCat("e = ", e.exponent, ", ", e.dtype), e.exact ? e.ulps : e.relative});
  }
  for (const StepError& e : measured.step_errors) {
    step.push_back({absl::StrCat(e.rows, " rows"), e.relative});
  }
  list.Least("multiply / triad", shares, 0.8);
  list.Most("relative error of a step", step, 1e-6);
  list.Most("power's error in ulp, exact exponents", ulps, 4);
  list.Most("power's relative error, other exponents", relative, 1e-6);
}

}  // namespace

std::vector<Claim> Claims(const Measurements& measured) {
  List list;
  for (const int threads : {1, 2}) {
    std::vector<Result> results;
    std::ranges::copy_if(measured.results, std::back_inserter(results),
                         [&](const Result& r) { return r.sizes.threads == threads; });
    const std::string name = threads == 1 ? "1 thread" : "2 threads";
    AddSpeed(results, name, threads == 1 ? 1.15 : 1.25, list);
    AddFloor(results, name, list);
  }
  AddStructure(measured.results, list);
  AddPowers(measured, list);
  return list.Take();
}

}  // namespace fisherd::bench
