// The plain HTTP port: what operators, probes and Prometheus ask.

#ifndef FISHERD_SERVER_HTTP_SERVER_H_
#define FISHERD_SERVER_HTTP_SERVER_H_

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

struct mg_connection;
struct mg_context;

namespace fisherd::server {

// Answers GET and HEAD of a few paths; of others 404, of other methods 405, and 400 if a query is
// not encoded as it should be. A request of more than 16 KiB is refused, and a connection on which
// none comes within 10 s is closed. Thread-safe.
class HttpServer {
 public:
  struct Request {
    std::map<std::string, std::string> query;  // decoded; the last of a name counts
    // Of the query; empty if there is none of that name.
    std::string Get(const std::string& name) const;
  };
  struct Response {
    int status = 200;
    std::string content_type = "text/plain; charset=utf-8";
    std::string body;
    std::string headers;  // more of them, each with its "\r\n"
  };
  // Called on a thread of the server's own, by several of them at once.
  using Handler = std::function<Response(const Request&)>;

  // Listens at HOST:PORT, where port 0 takes a free one. UNAVAILABLE if it cannot.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(absl::string_view address,
                                                           std::map<std::string, Handler> handlers);
  // When no handler runs any more.
  ~HttpServer();
  HttpServer(const HttpServer&) = delete;
  HttpServer& operator=(const HttpServer&) = delete;

  int port() const { return port_; }

 private:
  HttpServer(std::string address, std::map<std::string, Handler> handlers)
      : address_(std::move(address)), handlers_(std::move(handlers)) {}
  static int Answer(mg_connection* connection, void* server);

  const std::string address_;
  const std::map<std::string, Handler> handlers_;
  mg_context* context_ = nullptr;
  int port_ = 0;
};

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_HTTP_SERVER_H_
