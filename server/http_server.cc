#include "server/http_server.h"

#include <civetweb.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "server/log.h"

namespace fisherd::server {
namespace {

int LogMessage(const mg_connection*, const char* message) {
  LogWarning("HTTP: ", message);
  return 1;
}

// a=b&c=d, with + and %20 for a space. Nullopt for what is encoded wrongly.
std::optional<std::string> DecodeQuery(absl::string_view text) {
  std::string decoded;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+') {
      decoded += ' ';
    } else if (text[i] != '%') {
      decoded += text[i];
    } else {
      const absl::string_view digits = text.substr(i + 1, 2);
      if (digits.size() < 2 || !absl::ascii_isxdigit(digits[0]) ||
          !absl::ascii_isxdigit(digits[1])) {
        return std::nullopt;
      }
      decoded += absl::HexStringToBytes(digits);
      i += 2;
    }
  }
  return decoded;
}

std::optional<HttpServer::Request> RequestOf(const char* query) {
  HttpServer::Request request;
  if (query == nullptr) return request;
  for (const absl::string_view part : absl::StrSplit(query, '&', absl::SkipEmpty())) {
    const std::pair<absl::string_view, absl::string_view> pair =
        absl::StrSplit(part, absl::MaxSplits('=', 1));
    auto name = DecodeQuery(pair.first);
    auto value = DecodeQuery(pair.second);
    if (!name.has_value() || !value.has_value()) return std::nullopt;
    request.query[*std::move(name)] = *std::move(value);
  }
  return request;
}

void Send(mg_connection* connection, const HttpServer::Response& response, bool with_body,
          absl::string_view more_headers = "") {
  const std::string head = absl::StrCat(
      "HTTP/1.1 ", response.status, " ", mg_get_response_code_text(connection, response.status),
      "\r\nContent-Type: ", response.content_type, "\r\nContent-Length: ", response.body.size(),
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n",
      response.headers, more_headers, "\r\n");
  mg_write(connection, head.data(), head.size());
  if (with_body) mg_write(connection, response.body.data(), response.body.size());
}

// Connects, and says nothing.
void Knock(const std::string& address, int port) {
  std::string host = address.substr(0, address.rfind(':'));
  if (host.size() > 2 && host.front() == '[') host = host.substr(1, host.size() - 2);
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found) != 0) return;
  const int fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0) {
    if (connect(fd, found->ai_addr, found->ai_addrlen) != 0 && errno == EINPROGRESS) {
      pollfd connected = {.fd = fd, .events = POLLOUT, .revents = 0};
      poll(&connected, 1, 100);
    }
    close(fd);
  }
  freeaddrinfo(found);
}

}  // namespace

std::string HttpServer::Request::Get(const std::string& name) const {
  const auto found = query.find(name);
  return found == query.end() ? "" : found->second;
}

int HttpServer::Answer(mg_connection* connection, void* server) {
  const auto& handlers = static_cast<const HttpServer*>(server)->handlers_;
  const mg_request_info* const request = mg_get_request_info(connection);
  const absl::string_view method = request->request_method;
  const bool head = method == "HEAD";
  const auto handler = handlers.find(request->local_uri != nullptr ? request->local_uri : "");
  Response response;
  if (handler == handlers.end()) {
    response = {.status = 404, .body = "not found\n"};
  } else if (!head && method != "GET") {
    response = {.status = 405, .body = "only GET and HEAD\n"};
    Send(connection, response, true, "Allow: GET, HEAD\r\n");
    return response.status;
  } else if (const auto decoded = RequestOf(request->query_string)) {
    response = handler->second(*decoded);
  } else {
    response = {.status = 400, .body = "the query is not encoded as it should be\n"};
  }
  Send(connection, response, !head);
  return response.status;
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    absl::string_view address, std::map<std::string, Handler> handlers) {
  static const unsigned library = mg_init_library(0);
  (void)library;
  std::unique_ptr<HttpServer> server(new HttpServer(std::string(address), std::move(handlers)));
  const char* options[] = {"listening_ports",
                           server->address_.c_str(),
                           "num_threads",
                           "4",
                           "request_timeout_ms",
                           "10000",
                           "max_request_size",
                           "16384",
                           "enable_directory_listing",
                           "no",
                           nullptr};
  mg_callbacks callbacks = {};
  callbacks.log_message = LogMessage;
  server->context_ = mg_start(&callbacks, nullptr, options);
  mg_server_port port;
  if (server->context_ == nullptr || mg_get_server_ports(server->context_, 1, &port) != 1) {
    return absl::UnavailableError(absl::StrCat("cannot serve HTTP at ", address,
                                               ": the address is not this machine's, or is taken"));
  }
  server->port_ = port.port;
  // Every path is its business, those that it does not know too.
  mg_set_request_handler(server->context_, "**", Answer, server.get());
  return server;
}

// civetweb sees that it is to stop when someone comes, else within two seconds.
HttpServer::~HttpServer() {
  if (context_ == nullptr) return;
  std::atomic<bool> stopped = false;
  std::thread knocking([&] {
    while (!stopped) {
      Knock(address_, port_);
      absl::SleepFor(absl::Milliseconds(5));
    }
  });
  mg_stop(context_);
  stopped = true;
  knocking.join();
}

}  // namespace fisherd::server
