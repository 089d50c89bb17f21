// Pieces of HTML pages.

#ifndef FISHERD_SERVER_HTML_H_
#define FISHERD_SERVER_HTML_H_

#include <string>
#include <string_view>
#include <vector>

#include "server/http_server.h"

namespace fisherd::server {

// Any text as the content of an element, or as an attribute's value in quotation marks. What is not
// UTF-8 becomes '?'; control characters become visible.
std::string Escape(std::string_view text);
// Any text as a value in a query.
std::string EncodeQuery(std::string_view text);

// A whole page: title, and what stands in its main part, as HTML. Nothing is loaded from anywhere,
// and no script runs. It does not load itself anew: who reads, with a screen reader or without,
// would lose the place. It says of when it is instead.
HttpServer::Response HtmlPage(std::string_view title, std::string_view main, int status = 200);

// "1.5 MiB", "2.31e8", "1 h 5 min": for people.
std::string HumanBytes(int64_t bytes);
std::string HumanNumber(double number);
std::string HumanSeconds(double seconds);

// A line through values, oldest first, as a small picture. `label` says what it shows.
std::string Sparkline(const std::vector<double>& values, std::string_view label);
// A term and what it is, for a list of class "facts".
std::string Fact(std::string_view term, std::string_view value_html);
// A bar that shows a share of 0 to 1.
std::string Meter(double share, std::string_view label);

}  // namespace fisherd::server

#endif  // FISHERD_SERVER_HTML_H_
