// fisherd: flags in, a server out. Exit status 0; 1 if it cannot serve; 2 for a command line or an
// environment that it does not understand.

#include <iostream>

#include "server/command_line.h"
#include "server/options.h"
#include "server/serve.h"
#include "version.h"

int main(int argc, char** argv) {
  using namespace fisherd::server;
  if (const absl::Status status = ChooseKernels(); !status.ok()) {
    std::cerr << "fisherd: " << status.message() << "\n";
    return 2;
  }
  const auto read = [&] {
    return ParseCommandLine({argv + 1, argv + argc}, ProcessEnvironment(), DefaultOptions());
  };
  const auto line = read();
  if (!line.ok()) {
    std::cerr << "fisherd: " << line.status().message() << "; see fisherd --help\n";
    return 2;
  }
  switch (line->action) {
    case CommandLine::Action::kShowHelp:
      std::cout << HelpText();
      return 0;
    case CommandLine::Action::kShowVersion:
      std::cout << "fisherd " << kVersion << "\n" << DescribeKernels() << "\n";
      return 0;
    case CommandLine::Action::kServe:
      return Serve(*line, read);
    case CommandLine::Action::kCheckConfig:
      if (const absl::Status status = CheckConfig(line->options); !status.ok()) {
        std::cerr << "fisherd: " << status.message() << "\n";
        return 2;
      }
      std::cout << "good\n";
      return 0;
  }
}
