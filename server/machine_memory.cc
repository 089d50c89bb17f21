#include "server/machine_memory.h"

#include <algorithm>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/strip.h"

namespace fisherd::server {
namespace {

int64_t PhysicalMemory(const std::string& root) {
  std::ifstream meminfo(root + "/proc/meminfo");
  std::string key, unit;
  int64_t kib = 0;
  while (meminfo >> key >> kib && std::getline(meminfo, unit)) {
    if (key == "MemTotal:") return kib * 1024;
  }
  return 0;
}

// The process's group in the unified hierarchy: "/system.slice/fisherd.service". In a container
// with a namespace of its own that is "/".
std::string ControlGroup(const std::string& root) {
  std::ifstream groups(root + "/proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    if (absl::StartsWith(line, "0::/")) return line.substr(3);
  }
  return "/";
}

}  // namespace

int64_t MachineMemory(const std::string& root) {
  int64_t memory = PhysicalMemory(root);
  std::string group(absl::StripSuffix(ControlGroup(root), "/"));
  // A limit of a group holds for those below it.
  while (true) {
    std::ifstream file(root + "/sys/fs/cgroup" + group + "/memory.max");
    std::string text;
    int64_t limit;
    // "max" is no limit.
    if (file >> text && absl::SimpleAtoi(text, &limit)) memory = std::min(memory, limit);
    if (group.empty()) return memory;
    group.resize(group.rfind('/'));
  }
}

}  // namespace fisherd::server
