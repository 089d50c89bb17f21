// The C++ client of fisherd: named Fisher factors on a server, updated by streams of batches, read
// as linear operators.
//
//   absl::StatusOr<fisherd::Client> client = fisherd::Client::Connect("localhost:7600");
//   client->CreateFactor("mlp/0", fisherd::FullyConnectedDiagonal{
//                                     .input_size = 64, .output_size = 128, .has_bias = true},
//                        {.towers = 2}).IgnoreError();
//   client->SetDamping("global", 1e-3).IgnoreError();
//   ... see update_stream.h ...
//   absl::StatusOr<fisherd::Reading<float>> inverse_root =
//       client->Read("mlp/0", fisherd::Matpower(-0.5, "global"));
//   gradient.array() *= inverse_root->value.weight().array();

#ifndef FISHERD_CLIENT_H_
#define FISHERD_CLIENT_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "fisherd/linear_operator_diag.h"
#include "fisherd/matrix.h"
#include "fisherd/operators.h"
#include "fisherd/status.h"
#include "fisherd/update_stream.h"
#include "fisherd/v1/factor_service.pb.h"

namespace grpc {
class Channel;
}

namespace fisherd {

// How to encrypt, and whom to trust: texts in PEM form.
struct Tls {
  std::string root_certificates = {};  // of those who may vouch for the server; empty: the system's
  // This client's own, for a server that asks for them.
  std::string private_key = {};
  std::string certificate_chain = {};
  std::string server_name = {};  // that its certificate has, where that is not the address
};

struct ClientOptions {
  // How long Connect waits for the server, and how long a call may take that moves no tensors.
  absl::Duration connect_timeout = absl::Seconds(10);
  absl::Duration call_timeout = absl::Seconds(30);
  std::optional<Tls> tls = {};  // absent: nothing is encrypted
  // Sent with every call as `authorization: Bearer …`; empty: none. Over TLS, or to this machine:
  // Connect fails with INVALID_ARGUMENT otherwise.
  std::string token = {};
};

// Sizes of a fully-connected layer.
struct FullyConnectedDiagonal {
  int64_t input_size = 0;
  int64_t output_size = 0;
  bool has_bias = false;
};

// What a factor is beside its kind; the defaults are the server's.
struct FactorOptions {
  int towers = 1;
  int sources = 1;
  v1::DataType dtype = v1::DATA_TYPE_FLOAT32;  // or FLOAT64
  v1::TowerWeighting tower_weighting = v1::TOWER_WEIGHTING_TOWER_MEAN;
  bool zero_debias = true;
  v1::InitialCovariance initial_covariance = v1::INITIAL_COVARIANCE_ZEROS;
  v1::UpdateMode update_mode = v1::UPDATE_MODE_SYNCHRONOUS;  // or ASYNCHRONOUS
  // What becomes of a step whose towers have not all come in time.
  v1::GatherPolicy gather_policy = v1::GATHER_POLICY_FAIL;  // or PARTIAL
  std::optional<absl::Duration> gather_timeout = {};        // the server's own if absent
  int window = 0;  // steps that may be open at once; 0: the server's own
  v1::DurabilityLevel durability = v1::DURABILITY_LEVEL_UNSPECIFIED;  // the server's own
  v1::BackendChoice backend = v1::BACKEND_CHOICE_UNSPECIFIED;         // likewise
};

// Waits until this step has ended; another incarnation than the factor's is an error.
struct MinVersion {
  uint64_t incarnation = 0;
  int64_t step = 0;
};

struct ReadOptions {
  // [I, O], or [O, I] as PyTorch's Linear has it.
  v1::Layout layout = v1::LAYOUT_IN_OUT;
  std::optional<MinVersion> min_version = {};
  // A version read before: if the answer would be the same, it says `unchanged` and has no value.
  std::optional<v1::Version> if_version_not = {};
  // For the whole call, waiting and transfer.
  absl::Duration timeout = absl::Minutes(10);
  // Called in the reading thread with the bytes that have come, and those that will in all.
  std::function<void(int64_t done, int64_t total)> progress = {};
};

struct MultiplyOptions {
  v1::Layout layout = v1::LAYOUT_IN_OUT;
  std::optional<MinVersion> min_version = {};
  absl::Duration timeout = absl::Minutes(10);
};

// One factor's part of MultiplyAll.
struct MultiplyItem {
  std::string factor;
  v1::Operator op;
  // [I, O], or [O, I] with that layout, and [O], or absent without one: contiguous elements of the
  // call's Scalar, kept by the caller until it returns.
  MatrixView weight;
  MatrixView bias = {};
  v1::Layout layout = v1::LAYOUT_IN_OUT;
  std::optional<MinVersion> min_version = {};
};

// What was read, and of which version.
template <FloatOrDouble Scalar>
struct Reading {
  bool unchanged = false;
  v1::OperatorInfo info;             // steps_committed, damping as used, cached, …
  LinearOperatorDiag<Scalar> value;  // empty if unchanged

  const v1::Version& version() const { return info.version(); }
  int64_t steps_committed() const { return info.steps_committed(); }
};

template <FloatOrDouble Scalar>
struct Product {
  v1::OperatorInfo info;
  Matrix<Scalar> weight;
  Vector<Scalar> bias;  // empty without a bias
};

// A connection to one server. Thread-safe. All calls block; errors are those of
// factor_service.proto, see fisherd/status.h, and UNAVAILABLE if the server cannot be reached. Over
// a channel of Connect's, small calls that do no harm twice are tried again for a few seconds
// before that is their answer; transfers are not.
class Client {
 public:
  // Connects to "host:port", without encryption. UNAVAILABLE if there is no server in time.
  static absl::StatusOr<Client> Connect(const std::string& address,
                                        const ClientOptions& options = {});

  // Over a channel that the caller made, with credentials of its own or in-process.
  static Client FromChannel(std::shared_ptr<grpc::Channel> channel,
                            const ClientOptions& options = {});

  // Movable; a moved-from client may only be destroyed or assigned to.
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  ~Client();

  // Creating a factor that exists with the same specification is OK. The answer has every default
  // filled in, and the factor's version.
  absl::StatusOr<v1::FactorInfo> CreateFactor(std::string_view name,
                                              const FullyConnectedDiagonal& kind,
                                              const FactorOptions& options = {});
  absl::StatusOr<v1::FactorInfo> CreateFactor(std::string_view name, const v1::FactorSpec& spec);

  absl::StatusOr<v1::FactorInfo> Describe(std::string_view name);
  // All factors whose names start with `prefix`, by name.
  absl::StatusOr<std::vector<v1::FactorInfo>> List(std::string_view prefix = "");
  absl::Status Delete(std::string_view name);
  // Back to the initial covariance and step 1, under a new incarnation.
  absl::StatusOr<v1::FactorInfo> Reset(std::string_view name);
  // How many towers make a step, from the first step on that is not open, or `now`, from the first
  // that has not ended. Returns that step.
  absl::StatusOr<int64_t> SetTowers(std::string_view name, int towers, bool now = false);

  absl::Status SetDamping(std::string_view name, double value);
  absl::StatusOr<std::vector<v1::DampingInfo>> ListDampings(std::string_view prefix = "");
  absl::Status DeleteDamping(std::string_view name);

  // Has the server keep a result computed; `op` must have its damping by name.
  absl::StatusOr<v1::Registration> Register(std::string_view factor, const v1::Operator& op,
                                            const v1::RefreshPolicy& policy = OnRead());
  absl::Status Unregister(std::string_view factor, const v1::Operator& op);
  // Computes what is registered with `factor`, or with all if empty; returns how many results.
  absl::StatusOr<int> UpdateInverses(std::string_view factor = "");

  // OK if the server says that it is serving (the standard gRPC health service).
  absl::Status CheckHealth();

  // Reads an operator of one version whole. Scalar, float or double, is also the elements' type on
  // the wire, whatever the type of the factor's state. DATA_LOSS if the transfer was damaged.
  template <FloatOrDouble Scalar = float>
  absl::StatusOr<Reading<Scalar>> Read(std::string_view factor, const v1::Operator& op,
                                       const ReadOptions& options = {});

  // Multiplies an operator by a gradient, on the server. `weight` is [I, O], or [O, I] with that
  // layout; `bias` [O], or empty without one.
  template <FloatOrDouble Scalar>
  absl::StatusOr<Product<Scalar>> Multiply(std::string_view factor, const v1::Operator& op,
                                           const Matrix<Scalar>& weight,
                                           const Vector<Scalar>& bias = {},
                                           const MultiplyOptions& options = {});

  // The same for several factors in one call, as for all layers of a model: the products, in the
  // order of `items`. An error names the factor that it is about; then there are no products.
  template <FloatOrDouble Scalar = float>
  absl::StatusOr<std::vector<Product<Scalar>>> MultiplyAll(
      std::span<const MultiplyItem> items, absl::Duration timeout = absl::Minutes(10));

  // Calls back, in this thread, with what happens to the factors whose names start with `prefix`:
  // first one PRESENT for each. When the connection is lost it is made again, and begins so again.
  // Returns OK when the callback returns false, else what ended the call for good.
  absl::Status Watch(std::string_view prefix,
                     const std::function<bool(const v1::FactorEvent&)>& callback);

  // Opens this client's stream of updates; a newer one closes the older. Does not wait: what is
  // wrong with the stream is the answer of its first Open.
  UpdateStream OpenUpdates(const UpdateStreamOptions& options = {});

 private:
  class Impl;
  explicit Client(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

extern template absl::StatusOr<Reading<float>> Client::Read(std::string_view, const v1::Operator&,
                                                            const ReadOptions&);
extern template absl::StatusOr<Reading<double>> Client::Read(std::string_view, const v1::Operator&,
                                                             const ReadOptions&);
extern template absl::StatusOr<Product<float>> Client::Multiply(std::string_view,
                                                                const v1::Operator&,
                                                                const Matrix<float>&,
                                                                const Vector<float>&,
                                                                const MultiplyOptions&);
extern template absl::StatusOr<Product<double>> Client::Multiply(std::string_view,
                                                                 const v1::Operator&,
                                                                 const Matrix<double>&,
                                                                 const Vector<double>&,
                                                                 const MultiplyOptions&);
extern template absl::StatusOr<std::vector<Product<float>>> Client::MultiplyAll(
    std::span<const MultiplyItem>, absl::Duration);
extern template absl::StatusOr<std::vector<Product<double>>> Client::MultiplyAll(
    std::span<const MultiplyItem>, absl::Duration);

}  // namespace fisherd

#endif  // FISHERD_CLIENT_H_
