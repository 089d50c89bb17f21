// The C++ client against the whole server, at each kind of address that it connects to.

#include "fisherd/client.h"

#include "tests/end_to_end/server_fixture.h"

namespace fisherd::server {
namespace {

class ClientTest : public ServerTest {
 protected:
  Client Connect() {
    absl::StatusOr<Client> client = Client::Connect(Address());
    EXPECT_TRUE(client.ok()) << client.status();
    return *std::move(client);
  }
};

TEST_P(ClientTest, MultipliesAllLayersInOneCall) {
  CreateGolden("f");
  Create("g", LayerSpec(300, 2000, /*has_bias=*/false));
  Client client = Connect();
  const Matrix<double> f = Matrix<double>::Random(3, 2);
  const Matrix<double> g = Matrix<double>::Random(300, 2000);  // 4.6 MiB: five chunks
  const std::vector<MultiplyItem> items = {
      {.factor = "f",
       .op = fisherd::Covariance(),
       .weight = f.topRows(2),
       .bias = f.bottomRows<1>()},
      {.factor = "g", .op = fisherd::Matpower(-1, 0.5), .weight = g},
      {.factor = "f", .op = fisherd::Matpower(0, 0.5), .weight = f.topRows(2), .bias = f.row(2)}};
  const auto products = client.MultiplyAll<double>(items);
  ASSERT_TRUE(products.ok()) << products.status();
  for (int i = 0; i < 4; ++i) {
    EXPECT_EQ((*products)[0].weight.data()[i], kGoldenCovariance[i] * f.data()[i]);
  }
  EXPECT_EQ((*products)[0].bias[1], kGoldenCovariance[5] * f(2, 1));
  EXPECT_EQ((*products)[1].weight, 2 * g);
  EXPECT_EQ((*products)[1].bias.size(), 0);
  EXPECT_EQ((*products)[2].weight, f.topRows(2));
  EXPECT_EQ((*products)[0].info.steps_committed(), 1);
  EXPECT_EQ((*products)[1].info.steps_committed(), 0);
  // One by one it is the same.
  const Matrix<double> weight = f.topRows(2);
  const Vector<double> bias = f.row(2);
  const auto one = client.Multiply("f", fisherd::Covariance(), weight, bias);
  ASSERT_TRUE(one.ok()) << one.status();
  EXPECT_EQ(one->weight, (*products)[0].weight);
}

TEST_P(ClientTest, AnErrorAmongManyNamesItsFactor) {
  CreateGolden("f");
  Client client = Connect();
  const Matrix<float> f = Matrix<float>::Random(3, 2);
  const MultiplyItem good = {.factor = "f",
                             .op = fisherd::Covariance(),
                             .weight = f.topRows(2),
                             .bias = f.bottomRows<1>()};
  MultiplyItem bad = good;
  bad.factor = "unknown";
  const absl::Status status = client.MultiplyAll(std::vector{good, bad, good}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("\"unknown\""));
}

INSTANTIATE_TEST_SUITE_P(Addresses, ClientTest, testing::Values(Transport::kTcp, Transport::kUnix),
                         NameOf);

}  // namespace
}  // namespace fisherd::server
