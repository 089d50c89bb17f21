#include "server/http_server.h"

#include <civetweb.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "server/log.h"

namespace fisherd::server {
namespace {

int LogMessage(const mg_connection*, const char* message) {
  LogWarning("HTTP: ", message);
  return 1;
}

void Send(mg_connection* connection, const HttpServer::Response& response, bool with_body,
          absl::string_view more_headers = "") {
  const std::string head = absl::StrCat(
      "HTTP/1.1 ", response.status, " ", mg_get_response_code_text(connection, response.status),
      "\r\nContent-Type: ", response.content_type, "\r\nContent-Length: ", response.body.size(),
      "\r\nCache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n",
      more_headers, "\r\n");
  mg_write(connection, head.data(), head.size());
  if (with_body) mg_write(connection, response.body.data(), response.body.size());
}

}  // namespace

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
  } else {
    response = handler->second();
  }
  Send(connection, response, !head);
  return response.status;
}

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(
    absl::string_view address, std::map<std::string, Handler> handlers) {
  static const unsigned library = mg_init_library(0);
  (void)library;
  std::unique_ptr<HttpServer> server(new HttpServer(std::move(handlers)));
  const std::string ports(address);
  const char* options[] = {"listening_ports",
                           ports.c_str(),
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

HttpServer::~HttpServer() {
  if (context_ != nullptr) mg_stop(context_);
}

}  // namespace fisherd::server
