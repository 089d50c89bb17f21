// Just enough to write JSON.

#ifndef FISHERD_TESTS_BENCH_CORE_JSON_OBJECT_H_
#define FISHERD_TESTS_BENCH_CORE_JSON_OBJECT_H_

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace fisherd::bench {

inline std::string Quoted(const std::string& text) {
  std::string quoted = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') quoted.push_back('\\');
    quoted.push_back(static_cast<unsigned char>(c) < ' ' ? ' ' : c);
  }
  return quoted + "\"";
}

inline std::string Number(double x) {
  return std::isfinite(x) ? absl::StrFormat("%.6g", x) : "null";
}

// {"key": value, …}
class Object {
 public:
  Object& Text(const char* key, const std::string& text) { return Put(key, Quoted(text)); }
  Object& Put(const char* key, const std::string& json) {
    members_.push_back(absl::StrCat("\"", key, "\": ", json));
    return *this;
  }
  Object& Put(const char* key, double x) { return Put(key, Number(x)); }
  Object& Put(const char* key, int64_t x) { return Put(key, absl::StrCat(x)); }
  Object& Put(const char* key, int x) { return Put(key, absl::StrCat(x)); }
  Object& Put(const char* key, bool x) { return Put(key, std::string(x ? "true" : "false")); }
  std::string json() const { return absl::StrCat("{", absl::StrJoin(members_, ", "), "}"); }

 private:
  std::vector<std::string> members_;
};

template <typename T, typename F>
std::string JsonList(const std::vector<T>& items, const F& to_json) {
  std::vector<std::string> elements;
  for (const T& item : items) elements.push_back("\n  " + to_json(item).json());
  return absl::StrCat("[", absl::StrJoin(elements, ","), "]");
}

}  // namespace fisherd::bench

#endif  // FISHERD_TESTS_BENCH_CORE_JSON_OBJECT_H_
