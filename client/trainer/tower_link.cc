#include "client/trainer/tower_link.h"

#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>

#include "absl/strings/str_cat.h"

namespace fisherd::trainer {

TowerLink::~TowerLink() { close(socket_); }

absl::Status TowerLink::Sum(Layers& layers) {
  absl::StatusOr<Layers> theirs = Exchange(layers);
  if (!theirs.ok()) return theirs.status();
  for (size_t layer = 0; layer < layers.size(); ++layer) {
    const Matrix& first = tower_ == 0 ? layers[layer] : (*theirs)[layer];
    const Matrix& second = tower_ == 0 ? (*theirs)[layer] : layers[layer];
    layers[layer] = first + second;
  }
  return absl::OkStatus();
}

absl::StatusOr<Layers> TowerLink::Exchange(const Layers& layers) {
  Layers theirs;
  for (const Matrix& matrix : layers) {
    Matrix& other = theirs.emplace_back(matrix.rows(), matrix.cols());
    const auto mine = std::as_bytes(std::span(matrix.data(), matrix.size()));
    const auto room = std::as_writable_bytes(std::span(other.data(), other.size()));
    if (absl::Status status = Swap(mine, room); !status.ok()) return status;
  }
  return theirs;
}

absl::Status TowerLink::Agree(uint64_t value) {
  uint64_t other;
  absl::Status status =
      Swap(std::as_bytes(std::span(&value, 1)), std::as_writable_bytes(std::span(&other, 1)));
  if (!status.ok() || value == other) return status;
  return absl::FailedPreconditionError(absl::StrCat("the towers differ: tower ", tower_, " has ",
                                                    absl::Hex(value), ", tower ", 1 - tower_, " ",
                                                    absl::Hex(other)));
}

absl::Status TowerLink::Swap(std::span<const std::byte> mine, std::span<std::byte> theirs) {
  // Tower 0 talks first, so two full socket buffers never wait for each other.
  const uint64_t size = mine.size();
  const auto send = [&]() -> absl::Status {
    absl::Status status = Send(std::as_bytes(std::span(&size, 1)));
    return status.ok() ? Send(mine) : status;
  };
  const auto receive = [&]() -> absl::Status {
    uint64_t announced;
    absl::Status status = Receive(std::as_writable_bytes(std::span(&announced, 1)));
    if (!status.ok()) return status;
    if (announced != theirs.size()) {
      return absl::InternalError(absl::StrCat("tower ", 1 - tower_, " sent ", announced,
                                              " bytes where ", theirs.size(), " were expected"));
    }
    return Receive(theirs);
  };
  absl::Status status = tower_ == 0 ? send() : receive();
  if (!status.ok()) return status;
  return tower_ == 0 ? receive() : send();
}

absl::Status TowerLink::Send(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return absl::UnavailableError(absl::StrCat("tower ", 1 - tower_, " has gone"));
    bytes = bytes.subspan(count);
  }
  return absl::OkStatus();
}

absl::Status TowerLink::Receive(std::span<std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t count = recv(socket_, bytes.data(), bytes.size(), 0);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return absl::UnavailableError(absl::StrCat("tower ", 1 - tower_, " has gone"));
    bytes = bytes.subspan(count);
  }
  return absl::OkStatus();
}

}  // namespace fisherd::trainer
