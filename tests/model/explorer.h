// Breadth-first search through all states of a model, and random walks through one that is too
// large for it.

#ifndef FISHERD_TESTS_MODEL_EXPLORER_H_
#define FISHERD_TESTS_MODEL_EXPLORER_H_

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"

namespace fisherd::model {

struct Exploration {
  size_t states = 0;
  size_t transitions = 0;
  int depth = 0;
  double seconds = 0;
  bool complete = false;  // every reachable state was seen
  std::string violation;  // empty: none
  std::string trace;      // the events that lead there; by Explore the fewest

  bool ok() const { return complete && violation.empty(); }
};

inline std::string ToString(const Exploration& e) {
  return absl::StrCat(e.states, " states, ", e.transitions, " transitions, depth ", e.depth, ", ",
                      e.seconds, " s", e.complete ? "" : ", not all",
                      e.violation.empty() ? "" : "\nVIOLATED: ", e.violation,
                      e.violation.empty() ? "" : "\n", e.trace);
}

// A Model has types State (a value, cheap to copy) and Event (trivial, small), and
//   State Initial() const;
//   void Events(const State&, std::vector<Event>*) const;   what can happen
//   void Apply(State*, const Event&) const;
//   uint64_t Hash(const State&) const;                      equal for states that behave alike
//   std::string Check(const State&) const;                  what is violated, or ""
//   bool IsGoal(const State&) const;                        what must stay reachable from
//   everywhere std::string Describe(const Event&) const;
template <typename Model>
class Explorer {
 public:
  using State = typename Model::State;
  using Event = typename Model::Event;

  explicit Explorer(const Model& model) : model_(model) {}

  // All states, if they are no more than `max_states`. Two different ones are taken for the same
  // with a probability of about states² / 2⁶⁵.
  Exploration Explore(size_t max_states) {
    const auto start = std::chrono::steady_clock::now();
    Exploration result = Search(max_states);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    result.seconds = seconds.count();
    return result;
  }

  // Walks of random events, each until nothing more can happen or `length` events have, until there
  // have been `events` in all. Each ends by a fair one: `restrain` is told that the adversary has
  // had his day, and the goal must come within `patience` events more.
  template <typename Restrain>
  Exploration Walk(uint64_t seed, size_t events, int length, int patience, Restrain restrain) {
    const auto start = std::chrono::steady_clock::now();
    Exploration result;
    std::mt19937_64 random(seed);
    while (result.transitions < events && result.violation.empty()) {
      WalkOnce(random, length, patience, restrain, result);
    }
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    result.seconds = seconds.count();
    result.complete = result.violation.empty();
    return result;
  }

 private:
  struct Node {
    uint32_t parent = 0;
    Event via{};
    bool goal = false;
  };

  Exploration Search(size_t max_states) {
    Exploration result;
    std::vector<std::pair<uint32_t, State>> level, below;
    State initial = model_.Initial();
    ids_.emplace(model_.Hash(initial), 0);
    nodes_.push_back({.goal = model_.IsGoal(initial)});
    level.emplace_back(0, std::move(initial));
    std::vector<Event> events;
    for (; !level.empty(); ++result.depth, level.swap(below), below.clear()) {
      for (auto& [id, state] : level) {
        events.clear();
        model_.Events(state, &events);
        for (const Event& event : events) {
          State next = state;
          model_.Apply(&next, event);
          const auto [it, fresh] =
              ids_.try_emplace(model_.Hash(next), static_cast<uint32_t>(nodes_.size()));
          edges_.emplace_back(id, it->second);
          if (!fresh) continue;
          nodes_.push_back({.parent = id, .via = event, .goal = model_.IsGoal(next)});
          result.states = nodes_.size();
          result.transitions = edges_.size();
          if (std::string violation = model_.Check(next); !violation.empty()) {
            result.violation = std::move(violation);
            result.trace = TraceTo(it->second);
            return result;
          }
          if (nodes_.size() >= max_states) return result;
          below.emplace_back(it->second, std::move(next));
        }
        state = State();
      }
    }
    result.complete = true;
    if (const std::optional<uint32_t> stuck = FirstWithoutGoal()) {
      result.violation = "from here the steps can never end";
      result.trace = TraceTo(*stuck);
    }
    return result;
  }

  // The first state found from which no goal can be reached.
  std::optional<uint32_t> FirstWithoutGoal() const {
    const size_t count = nodes_.size();
    std::vector<size_t> begin(count + 1, 0);
    for (const auto& [from, to] : edges_) ++begin[to + 1];
    for (size_t i = 0; i < count; ++i) begin[i + 1] += begin[i];
    std::vector<uint32_t> before(edges_.size());
    std::vector<size_t> end(begin.begin(), begin.end() - 1);
    for (const auto& [from, to] : edges_) before[end[to]++] = from;
    std::vector<bool> good(count, false);
    std::vector<uint32_t> todo;
    for (uint32_t i = 0; i < count; ++i) {
      if (!nodes_[i].goal) continue;
      good[i] = true;
      todo.push_back(i);
    }
    while (!todo.empty()) {
      const uint32_t id = todo.back();
      todo.pop_back();
      for (size_t e = begin[id]; e < begin[id + 1]; ++e) {
        if (good[before[e]]) continue;
        good[before[e]] = true;
        todo.push_back(before[e]);
      }
    }
    const auto stuck = std::find(good.begin(), good.end(), false);
    if (stuck == good.end()) return std::nullopt;
    return static_cast<uint32_t>(stuck - good.begin());
  }

  std::string TraceTo(uint32_t id) const {
    std::vector<Event> events;
    for (; id != 0; id = nodes_[id].parent) events.push_back(nodes_[id].via);
    std::reverse(events.begin(), events.end());
    return Trace(events);
  }

  std::string Trace(const std::vector<Event>& events) const {
    std::string trace;
    for (size_t i = 0; i < events.size(); ++i) {
      absl::StrAppend(&trace, "  ", i + 1, ". ", model_.Describe(events[i]), "\n");
    }
    return trace;
  }

  template <typename Restrain>
  void WalkOnce(std::mt19937_64& random, int length, int patience, const Restrain& restrain,
                Exploration& result) const {
    State state = model_.Initial();
    std::vector<Event> events;
    std::vector<Event> past;
    const int usual = 1 + static_cast<int>(random() % length);
    for (int i = 0; i < usual + patience; ++i) {
      if (i >= usual && model_.IsGoal(state)) return;
      if (i == usual) restrain(&state);
      events.clear();
      model_.Events(state, &events);
      if (events.empty()) break;
      past.push_back(events[random() % events.size()]);
      model_.Apply(&state, past.back());
      ++result.states;
      ++result.transitions;
      result.depth = std::max(result.depth, static_cast<int>(past.size()));
      result.violation = model_.Check(state);
      if (!result.violation.empty()) {
        result.trace = Trace(past);
        return;
      }
    }
    if (model_.IsGoal(state)) return;
    result.violation = "the steps do not end";
    result.trace = Trace(past);
  }

  const Model& model_;
  absl::flat_hash_map<uint64_t, uint32_t> ids_;
  std::vector<Node> nodes_;
  std::vector<std::pair<uint32_t, uint32_t>> edges_;
};

}  // namespace fisherd::model

#endif  // FISHERD_TESTS_MODEL_EXPLORER_H_
