#include "client/trainer/tower_link.h"

#include <sys/socket.h>

#include <array>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "client/trainer/network.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fisherd::trainer {
namespace {

using ::testing::HasSubstr;

class TowerLinkTest : public testing::Test {
 protected:
  TowerLinkTest() {
    int sockets[2];
    EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    for (int tower : {0, 1}) links_[tower] = std::make_unique<TowerLink>(sockets[tower], tower);
  }

  // Runs both ends at once.
  template <typename First, typename Second>
  void Together(First first, Second second) {
    std::thread other([&] { second(*links_[1]); });
    first(*links_[0]);
    other.join();
  }

  std::array<std::unique_ptr<TowerLink>, 2> links_;
};

// Larger than a socket's buffer.
Layers Filled(uint32_t seed) {
  Random random({seed});
  Layers layers = {Matrix(700, 900), Matrix(1, 3)};
  for (Matrix& matrix : layers) {
    for (float& element : matrix.reshaped()) element = static_cast<float>(random.Normal());
  }
  return layers;
}

TEST_F(TowerLinkTest, SumIsTheSameAtBothEnds) {
  Layers first = Filled(1), second = Filled(2);
  const Layers expected = {first[0] + second[0], first[1] + second[1]};
  Together([&](TowerLink& link) { EXPECT_TRUE(link.Sum(first).ok()); },
           [&](TowerLink& link) { EXPECT_TRUE(link.Sum(second).ok()); });
  EXPECT_EQ(Checksum(first), Checksum(second));
  EXPECT_EQ(Checksum(first), Checksum(expected));
}

TEST_F(TowerLinkTest, ExchangeGivesTheOthers) {
  const Layers first = Filled(1), second = Filled(2);
  const auto check = [](TowerLink& link, const Layers& mine, const Layers& theirs) {
    absl::StatusOr<Layers> got = link.Exchange(mine);
    ASSERT_TRUE(got.ok()) << got.status();
    EXPECT_EQ(Checksum(*got), Checksum(theirs));
  };
  Together([&](TowerLink& link) { check(link, first, second); },
           [&](TowerLink& link) { check(link, second, first); });
}

TEST_F(TowerLinkTest, AgreeTellsWhetherValuesDiffer) {
  Together([](TowerLink& link) { EXPECT_TRUE(link.Agree(5).ok()); },
           [](TowerLink& link) { EXPECT_TRUE(link.Agree(5).ok()); });
  Together(
      [](TowerLink& link) {
        absl::Status status = link.Agree(0xab);
        EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
        EXPECT_EQ(status.message(), "the towers differ: tower 0 has ab, tower 1 cd");
      },
      [](TowerLink& link) {
        EXPECT_EQ(link.Agree(0xcd).message(), "the towers differ: tower 1 has cd, tower 0 ab");
      });
}

TEST_F(TowerLinkTest, AnotherCallIsNoticed) {
  Together(
      [](TowerLink& link) {
        Layers layers = {Matrix::Zero(1, 3)};
        EXPECT_EQ(link.Sum(layers).code(), absl::StatusCode::kUnavailable);
        EXPECT_TRUE(layers[0].isZero());
      },
      [this](TowerLink& link) {
        absl::Status status = link.Agree(1);
        EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
        EXPECT_EQ(status.message(), "tower 0 sent 12 bytes where 8 were expected");
        links_[1].reset();  // as the process would end
      });
}

TEST_F(TowerLinkTest, AnEndThatHasGone) {
  links_[1].reset();
  EXPECT_EQ(links_[0]->Agree(1).code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(links_[0]->Agree(1).message()), HasSubstr("tower 1 has gone"));
}

}  // namespace
}  // namespace fisherd::trainer
