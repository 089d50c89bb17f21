// The program, apart from main(): so that tests can run it.

#ifndef FISHERD_CTL_FISHERCTL_H_
#define FISHERD_CTL_FISHERCTL_H_

#include <ostream>
#include <string>
#include <vector>

namespace fisherd::ctl {

inline constexpr int kDone = 0;
inline constexpr int kRpcError = 1;
inline constexpr int kUsageError = 2;

// Runs fisherctl with the arguments after the program's name and returns its exit code. Answers go
// to `out`, complaints and the progress bar to `err`.
int Run(const std::vector<std::string>& arguments, std::ostream& out, std::ostream& err,
        bool err_is_terminal);

}  // namespace fisherd::ctl

#endif  // FISHERD_CTL_FISHERCTL_H_
