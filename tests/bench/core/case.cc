#include "tests/bench/core/case.h"

#include "absl/strings/str_cat.h"

namespace fisherd::bench {
namespace {

constexpr Case kShapes[] = {
    {1, 1024, 1024},  {8, 4096, 4096},   {32, 1024, 1024},  {64, 4096, 4096},
    {128, 784, 1000}, {128, 1024, 1024}, {256, 64, 10},     {512, 1024, 4096},
    {2048, 512, 512}, {8192, 768, 3072}, {127, 1023, 1025},
};
constexpr Case kQuickShapes[] = {{1, 1024, 1024}, {128, 1024, 1024}, {2048, 512, 512}};

}  // namespace

std::string Case::ShapeName() const { return absl::StrCat(rows, "x", inputs, "x", outputs); }

std::string Case::Name() const {
  return absl::StrCat(ShapeName(), bias ? "/bias" : "/plain", "/s", sources, "/t", towers, "/",
                      threads);
}

std::vector<Case> Cases(int threads, bool quick) {
  std::vector<Case> cases;
  const auto add_variants = [&](Case shape) {
    shape.threads = threads;
    for (const bool bias : {true, false}) {
      cases.push_back(shape);
      cases.back().bias = bias;
    }
    cases.push_back(shape);
    cases.back().sources = 4;
    cases.push_back(shape);
    cases.back().towers = 4;
  };
  if (quick) {
    for (const Case& shape : kQuickShapes) add_variants(shape);
  } else {
    for (const Case& shape : kShapes) add_variants(shape);
  }
  return cases;
}

}  // namespace fisherd::bench
