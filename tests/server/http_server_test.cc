#include "server/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/http_get.h"

namespace fisherd::server {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class HttpServerTest : public testing::Test {
 protected:
  HttpServerTest() {
    auto started = HttpServer::Start(
        "127.0.0.1:0", {{"/page",
                         [this](const HttpServer::Request& request) {
                           if (!request.query.empty()) request_ = request;
                           ++calls_;
                           return HttpServer::Response{.content_type = "text/x", .body = "hello"};
                         }},
                        {"/bad", [](const HttpServer::Request&) {
                           return HttpServer::Response{.status = 503, .body = "no"};
                         }}});
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }

  HttpServer::Request request_;  // of one test that asks once at a time
  std::atomic<int> calls_ = 0;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersItsPaths) {
  const std::string answer = HttpGet(server_->port(), "/page");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Type: text/x\r\n"));
  EXPECT_THAT(answer, HasSubstr("\r\nContent-Length: 5\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\nhello"));
  EXPECT_THAT(HttpGet(server_->port(), "/page?x=1"), EndsWith("hello"));
  EXPECT_THAT(HttpGet(server_->port(), "/bad"), StartsWith("HTTP/1.1 503 "));
}

TEST_F(HttpServerTest, QueriesAreDecodedOrRefused) {
  EXPECT_THAT(HttpGet(server_->port(), "/page?a=1&b=%3Cx%3E+y&c&a=2"), EndsWith("hello"));
  EXPECT_EQ(request_.Get("a"), "2");
  EXPECT_EQ(request_.Get("b"), "<x> y");
  EXPECT_EQ(request_.Get("c"), "");
  EXPECT_EQ(request_.Get("d"), "");
  for (const char* query : {"a=%", "a=%4", "a=%zz", "%=1"}) {
    EXPECT_THAT(HttpGet(server_->port(), std::string("/page?") + query),
                StartsWith("HTTP/1.1 400 "))
        << query;
  }
}

TEST_F(HttpServerTest, LongQueriesAreAnsweredAndLongerOnesRefused) {
  std::string query;
  while (query.size() < 12'000) query += "%41";
  EXPECT_THAT(HttpGet(server_->port(), "/page?a=" + query), EndsWith("hello"));
  EXPECT_EQ(request_.Get("a"), std::string(query.size() / 3, 'A'));
  EXPECT_THAT(HttpGet(server_->port(), "/page?a=" + query + query), Not(HasSubstr("hello")));
}

TEST_F(HttpServerTest, HeadHasNoBody) {
  const std::string answer = HttpGet(server_->port(), "/page", "HEAD");
  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, EndsWith("\r\n\r\n"));
}

TEST_F(HttpServerTest, OtherPathsAndMethodsAreRefused) {
  for (const char* path : {"/", "/page/", "/page/more", "/../etc/passwd", "/%2e%2e/etc/passwd"}) {
    EXPECT_THAT(HttpGet(server_->port(), path), StartsWith("HTTP/1.1 404 ")) << path;
  }
  for (const char* method : {"POST", "PUT", "DELETE"}) {
    const std::string answer = HttpGet(server_->port(), "/page", method);
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 405 ")) << method;
    EXPECT_THAT(answer, HasSubstr("Allow: GET, HEAD")) << method;
  }
  EXPECT_EQ(calls_, 0);
}

TEST_F(HttpServerTest, NonsenseIsRefusedAndTheNextIsAnswered) {
  std::string long_header = "GET /page HTTP/1.1\r\nX: ";
  long_header.append(100'000, 'x').append("\r\n\r\n");
  const std::string bytes("\0\xFF\x80\r\n\r\n", 7);
  for (const std::string& nonsense : std::vector<std::string>{
           "nonsense\r\n\r\n", "GET /page HTTP/9.9\r\n\r\n", bytes, long_header}) {
    EXPECT_THAT(HttpExchange(server_->port(), nonsense), Not(HasSubstr("hello")));
  }
  EXPECT_THAT(HttpGet(server_->port(), "/page"), EndsWith("hello"));
}

TEST_F(HttpServerTest, AnswersManyAtOnce) {
  std::vector<std::thread> threads;
  std::atomic<int> answered = 0;
  for (int i = 0; i < 8; ++i) {
    threads.emplace_back([&] {
      for (int k = 0; k < 20; ++k) answered += HttpGet(server_->port(), "/page").ends_with("hello");
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(answered, 160);
}

TEST_F(HttpServerTest, AnAddressThatIsTakenIsAnError) {
  const auto second = HttpServer::Start(absl::StrCat("127.0.0.1:", server_->port()), {});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("127.0.0.1:", server_->port())));
}

}  // namespace
}  // namespace fisherd::server
