#include "server/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"

namespace fisherd::server {

std::optional<std::string> SocketPath(absl::string_view address) {
  if (!absl::ConsumePrefix(&address, "unix:")) return std::nullopt;
  absl::ConsumePrefix(&address, "//");
  return std::string(address);
}

absl::Status CheckSocketIsFree(const std::string& path) {
  struct stat file;
  if (lstat(path.c_str(), &file) != 0) return absl::OkStatus();
  if (!S_ISSOCK(file.st_mode)) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen at unix:", path, ": the file is not a socket"));
  }
  const int probe = socket(AF_UNIX, SOCK_STREAM, 0);
  fcntl(probe, F_SETFL, O_NONBLOCK);  // a server that hangs is there too
  sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = {}};
  std::strncpy(address.sun_path, path.c_str(), kMaxSocketPath);
  const bool refused =
      connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 &&
      errno == ECONNREFUSED;
  close(probe);
  if (refused) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot listen at unix:", path, ": the address is taken"));
}

absl::Status SetSocketMode(const std::string& path) {
  if (chmod(path.c_str(), S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP) == 0) return absl::OkStatus();
  return absl::UnavailableError(
      absl::StrCat("cannot set the mode of ", path, ": ", std::strerror(errno)));
}

}  // namespace fisherd::server
