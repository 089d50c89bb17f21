// Creates a factor at the server whose address is the argument, and reads it before its first step.

#include <fisherd/client.h>

#include <iostream>

int main(int, char** argv) {
  absl::StatusOr<fisherd::Client> client = fisherd::Client::Connect(argv[1]);
  if (!client.ok()) return std::cerr << client.status() << "\n", 1;
  const fisherd::FullyConnectedDiagonal layer{.input_size = 2, .output_size = 3, .has_bias = true};
  if (auto factor = client->CreateFactor("layer", layer); !factor.ok()) {
    return std::cerr << factor.status() << "\n", 1;
  }
  auto covariance = client->Read("layer", fisherd::Covariance());
  if (!covariance.ok()) return std::cerr << covariance.status() << "\n", 1;
  std::cout << covariance->value.diag_part().transpose() << "\n";
}
