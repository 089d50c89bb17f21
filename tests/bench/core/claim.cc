#include "tests/bench/core/claim.h"

#include <cstdio>

#include "absl/strings/str_format.h"

namespace fisherd::bench {

void PrintClaims(const std::vector<Claim>& claims) {
  absl::PrintF("\nwhat must hold\n");
  for (const Claim& claim : claims) {
    absl::PrintF("%-11s %8.3g  %s %-5g  %s (%d case%s%s%s)\n",
                 claim.holds() ? "holds" : "falls short", claim.figure,
                 claim.at_least ? "at least" : "at most ", claim.bound, claim.what, claim.cases,
                 claim.cases == 1 ? "" : "s", claim.where.empty() ? "" : "; ", claim.where);
  }
  std::fflush(stdout);
}

Object ClaimObject(const Claim& claim) {
  return Object()
      .Text("what", claim.what)
      .Put("figure", claim.figure)
      .Text("must_be", claim.at_least ? "at least" : "at most")
      .Put("bound", claim.bound)
      .Put("holds", claim.holds())
      .Text("where", claim.where);
}

}  // namespace fisherd::bench
