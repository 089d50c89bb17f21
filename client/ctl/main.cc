#include <unistd.h>

#include <iostream>

#include "client/ctl/fisherctl.h"

int main(int argc, char** argv) {
  return fisherd::ctl::Run({argv + 1, argv + argc}, std::cout, std::cerr,
                           isatty(STDERR_FILENO) == 1);
}
