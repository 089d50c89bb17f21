#include "core/room_queue.h"

#include <gtest/gtest.h>

namespace fisherd::core {
namespace {

TEST(RoomQueueTest, FirstComeFirstServed) {
  RoomQueue<int> queue(100);
  EXPECT_TRUE(queue.TakeInTurn(1, 80));
  EXPECT_FALSE(queue.TakeInTurn(2, 50));
  EXPECT_FALSE(queue.TakeInTurn(3, 10)) << "there is room, but 2 came first";
  EXPECT_FALSE(queue.Ready().has_value());
  queue.GiveBack(80);
  EXPECT_EQ(queue.Ready(), 2);
  EXPECT_FALSE(queue.TakeInTurn(3, 10)) << "it is not its turn";
  EXPECT_TRUE(queue.TakeInTurn(2, 50));
  EXPECT_EQ(queue.Ready(), 3);
  EXPECT_TRUE(queue.TakeInTurn(3, 10));
  EXPECT_FALSE(queue.Ready().has_value());
  EXPECT_EQ(queue.used(), 60);
}

TEST(RoomQueueTest, OneWhoWaitsHasOnePlace) {
  RoomQueue<int> queue(10);
  EXPECT_TRUE(queue.TakeInTurn(1, 10));
  EXPECT_FALSE(queue.TakeInTurn(2, 5));
  EXPECT_FALSE(queue.TakeInTurn(3, 5));
  EXPECT_FALSE(queue.TakeInTurn(2, 8)) << "wants more now, and keeps its place";
  EXPECT_EQ(queue.waiting().size(), 2);
  queue.GiveBack(7);
  EXPECT_FALSE(queue.Ready().has_value()) << "7 are not 8";
  queue.GiveBack(1);
  EXPECT_EQ(queue.Ready(), 2);
}

TEST(RoomQueueTest, WhoLeavesHoldsNobodyUp) {
  RoomQueue<int> queue(10);
  EXPECT_TRUE(queue.TakeInTurn(1, 6));
  EXPECT_FALSE(queue.TakeInTurn(2, 5));
  EXPECT_FALSE(queue.TakeInTurn(3, 4));
  queue.Leave(4);
  queue.Leave(2);
  EXPECT_EQ(queue.Ready(), 3);
}

TEST(RoomQueueTest, WhatIsOpenTakesWhoeverWaits) {
  RoomQueue<int> queue(10);
  EXPECT_TRUE(queue.TakeInTurn(1, 4));
  EXPECT_FALSE(queue.TakeInTurn(2, 8));
  EXPECT_TRUE(queue.Take(6));
  EXPECT_FALSE(queue.Take(1));
}

}  // namespace
}  // namespace fisherd::core
