// Who may do what, and over which wires.

#include <gmock/gmock.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <sstream>
#include <string>
#include <vector>

#include "client/ctl/fisherctl.h"
#include "fisherd/client.h"
#include "fisherd/v1/data_service.grpc.pb.h"
#include "fisherd/v1/factor_service.grpc.pb.h"
#include "google/protobuf/dynamic_message.h"
#include "server/server.h"
#include "tests/http_get.h"
#include "tests/test_path.h"

namespace fisherd {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Contents(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  return text.str();
}

// What a shell says to a command; the test fails if it does not end well.
std::string Say(const std::string& command) {
  std::FILE* const pipe = popen(command.c_str(), "r");
  std::string said;
  char buffer[256];
  while (fgets(buffer, sizeof(buffer), pipe) != nullptr) said += buffer;
  EXPECT_EQ(pclose(pipe), 0) << command;
  return said;
}

class SecurityTest : public testing::Test {
 protected:
  SecurityTest() {
    std::filesystem::create_directories(directory_);
    options_.listen = {"127.0.0.1:0"};
    options_.http = "127.0.0.1:0";
    options_.state_budget = options_.batch_budget = 64 << 20;
    options_.data_dir = directory_ + "/data";
    options_.disk_reserve = 1;
  }
  ~SecurityTest() override {
    server_.reset();
    std::filesystem::remove_all(directory_);
  }

  void Start() {
    auto server = server::Server::Start(options_);
    ASSERT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  std::string Address() const { return "127.0.0.1:" + std::to_string(server_->port()); }
  std::string Metrics() const { return HttpGet(server_->http_port(), "/metrics"); }
  std::string Path(const std::string& name) const { return directory_ + "/" + name; }

  static std::string HashOf(const std::string& token) {
    return Say("printf %s '" + token + "' | sha256sum").substr(0, 64);
  }
  void WriteIdentities(const std::string& text) {
    std::ofstream(Path("identities.yaml")) << "identities:\n" << text;
    options_.identities = Path("identities.yaml");
  }
  // An identity with a token NAME-token.
  static std::string Entry(const std::string& name, const std::string& rest) {
    return "  - name: " + name + "\n    token_sha256: " + HashOf(name + "-token") + "\n" + rest;
  }

  // An authority, and what it vouches for.
  void MakeAuthority(const std::string& name) {
    Say("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=" +
        name + " -keyout " + Path(name + ".key") + " -out " + Path(name + ".pem") + " 2>/dev/null");
  }
  void MakeCertificate(const std::string& authority, const std::string& name,
                       const std::string& alternative, int days = 2) {
    std::ofstream(Path(name + ".ext")) << "subjectAltName=" << alternative << "\n";
    Say("openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + name +
        " -keyout " + Path(name + ".key") + " -out " + Path(name + ".csr") +
        " 2>/dev/null && openssl x509 -req -in " + Path(name + ".csr") + " -CA " +
        Path(authority + ".pem") + " -CAkey " + Path(authority + ".key") +
        " -CAcreateserial -days " + std::to_string(days) + " -extfile " + Path(name + ".ext") +
        " -out " + Path(name + ".pem") + " 2>/dev/null");
  }
  void UseTls(const std::string& certificate, const std::string& client_ca = "") {
    options_.tls.certificate = Path(certificate + ".pem");
    options_.tls.key = Path(certificate + ".key");
    if (!client_ca.empty()) options_.tls.client_ca = Path(client_ca + ".pem");
  }
  Tls TlsOf(const std::string& authority, const std::string& own = "") const {
    Tls tls{.root_certificates = Contents(Path(authority + ".pem"))};
    if (own.empty()) return tls;
    tls.certificate_chain = Contents(Path(own + ".pem"));
    tls.private_key = Contents(Path(own + ".key"));
    return tls;
  }
  // How a call over such a connection ends; UNAVAILABLE if there is none.
  absl::Status TryCall(const ClientOptions& options) const {
    ClientOptions patient = options;
    patient.connect_timeout = absl::Milliseconds(700);
    auto client = Client::Connect(Address(), patient);
    if (!client.ok()) return client.status();
    return client->List("jobs/").status();
  }

  const std::string directory_ = TestPath();
  server::Options options_;
  std::unique_ptr<server::Server> server_;
};

// ---- The deny matrix

enum class Need { kRead, kUpdate, kAdmin };
struct Method {
  std::string field;  // of the request: the name or the prefix that it is about; empty: it is all
  Need need;
};

// Every method there is, so that a new one has to be thought of here.
const std::map<std::string, Method>& Methods() {
  static const std::map<std::string, Method> methods = {
      {"fisherd.v1.FactorService.CreateFactor", {"name", Need::kUpdate}},
      {"fisherd.v1.FactorService.DescribeFactor", {"name", Need::kRead}},
      {"fisherd.v1.FactorService.ListFactors", {"prefix", Need::kRead}},
      {"fisherd.v1.FactorService.DeleteFactor", {"name", Need::kAdmin}},
      {"fisherd.v1.FactorService.ResetFactor", {"name", Need::kAdmin}},
      {"fisherd.v1.FactorService.SetTowers", {"name", Need::kUpdate}},
      {"fisherd.v1.FactorService.SetDamping", {"name", Need::kUpdate}},
      {"fisherd.v1.FactorService.ListDampings", {"prefix", Need::kRead}},
      {"fisherd.v1.FactorService.DeleteDamping", {"name", Need::kAdmin}},
      {"fisherd.v1.FactorService.Register", {"factor", Need::kUpdate}},
      {"fisherd.v1.FactorService.Unregister", {"factor", Need::kUpdate}},
      {"fisherd.v1.FactorService.UpdateInverses", {"factor", Need::kUpdate}},
      {"fisherd.v1.FactorService.UpdateOnce", {"header.factor", Need::kUpdate}},
      {"fisherd.v1.FactorService.Watch", {"prefix", Need::kRead}},
      {"fisherd.v1.FactorService.Read", {"factor", Need::kRead}},
      {"fisherd.v1.FactorService.Multiply", {"header.factor", Need::kRead}},
      {"fisherd.v1.DataService.Snapshot", {"prefix", Need::kAdmin}},
      {"fisherd.v1.DataService.ListGenerations", {"factor", Need::kAdmin}},
      {"fisherd.v1.DataService.RestoreGeneration", {"factor", Need::kAdmin}},
      {"fisherd.v1.DataService.ExportFactor", {"factor", Need::kAdmin}},
      {"fisherd.v1.DataService.ImportFactor", {"header.factor", Need::kAdmin}},
      {"fisherd.v1.DataService.Backup", {"", Need::kAdmin}},
  };
  return methods;
}

// One message about `name`, by reflection.
std::string RequestOf(const google::protobuf::Descriptor& type, std::string field,
                      const std::string& name) {
  google::protobuf::DynamicMessageFactory factory;
  const std::unique_ptr<google::protobuf::Message> request(factory.GetPrototype(&type)->New());
  google::protobuf::Message* message = request.get();
  if (const size_t dot = field.find('.'); dot != std::string::npos) {
    message = message->GetReflection()->MutableMessage(
        message, message->GetDescriptor()->FindFieldByName(field.substr(0, dot)), &factory);
    field = field.substr(dot + 1);
  }
  if (!field.empty()) {
    const auto* const descriptor = message->GetDescriptor()->FindFieldByName(field);
    EXPECT_NE(descriptor, nullptr) << type.full_name() << " " << field;
    message->GetReflection()->SetString(message, descriptor, name);
  }
  return request->SerializeAsString();
}

// Sends one message and answers how the call ends; one that goes on is given up, as OK.
grpc::StatusCode CallOnce(const std::shared_ptr<grpc::Channel>& channel, const std::string& path,
                          const std::string& request, const std::string& token) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(300));
  if (!token.empty()) context.AddMetadata("authorization", "Bearer " + token);
  grpc::CompletionQueue queue;
  const auto call = stub.PrepareCall(&context, path, &queue);
  const auto await = [&] {
    void* tag = nullptr;
    bool ok = false;
    queue.Next(&tag, &ok);
    return ok;
  };
  call->StartCall(nullptr);
  await();
  const grpc::Slice slice(request);
  call->Write(grpc::ByteBuffer(&slice, 1), grpc::WriteOptions().set_last_message(), nullptr);
  await();
  grpc::ByteBuffer response;
  for (bool more = true; more;) {
    call->Read(&response, nullptr);
    more = await();
  }
  grpc::Status status;
  call->Finish(&status, nullptr);
  await();
  return status.error_code() == grpc::DEADLINE_EXCEEDED ? grpc::OK : status.error_code();
}

TEST_F(SecurityTest, TheMatrixOfIdentitiesMethodsAndPrefixes) {
  WriteIdentities(Entry("reader", "    read: [jobs/a/]\n") +
                  Entry("writer", "    update: [jobs/a/]\n") +
                  Entry("admin", "    admin: [jobs/a/]\n") + Entry("all", "    admin: [\"\"]\n") +
                  Entry("nobody", ""));
  Start();
  const auto channel = grpc::CreateChannel(Address(), grpc::InsecureChannelCredentials());
  struct Who {
    std::string token;
    int level;  // the highest Need that it has below jobs/a/, or −1
    bool everywhere = false;
  };
  const Who everyone[] = {{"reader-token", 0},
                          {"writer-token", 1},
                          {"admin-token", 2},
                          {"all-token", 2, true},
                          {"nobody-token", -1}};
  int cells = 0;
  const auto* const pool = google::protobuf::DescriptorPool::generated_pool();
  for (const char* service : {"fisherd.v1.FactorService", "fisherd.v1.DataService"}) {
    const auto* const descriptor = pool->FindServiceByName(service);
    for (int i = 0; i < descriptor->method_count(); ++i) {
      const auto* const method = descriptor->method(i);
      if (method->name() == "Update") continue;  // by factor, within: below
      ASSERT_TRUE(Methods().contains(method->full_name())) << method->full_name();
      const auto& [field, need] = Methods().at(method->full_name());
      const std::string path = std::string("/") + service + "/" + method->name();
      for (const std::string name : {"jobs/a/x", "jobs/b/x", "jobs/a", ""}) {
        const std::string request = RequestOf(*method->input_type(), field, name);
        for (const std::string token : {"", "wrong-token"}) {
          EXPECT_EQ(CallOnce(channel, path, request, token), grpc::UNAUTHENTICATED)
              << path << " " << name;
          ++cells;
        }
        for (const auto& [token, level, everywhere] : everyone) {
          const bool within = everywhere || (name == "jobs/a/x" && !field.empty());
          const bool may = within && level >= static_cast<int>(need);
          const grpc::StatusCode code = CallOnce(channel, path, request, token);
          EXPECT_EQ(code == grpc::PERMISSION_DENIED, !may)
              << path << " \"" << name << "\" " << token << " ended with " << code;
          EXPECT_NE(code, grpc::UNAUTHENTICATED) << path;
          ++cells;
        }
      }
    }
  }
  EXPECT_EQ(cells, static_cast<int>(Methods().size()) * 4 * 7);
}

TEST_F(SecurityTest, AStreamMayUpdateWhatItsCallerMay) {
  WriteIdentities(Entry("a", "    update: [jobs/a/]\n") + Entry("ops", "    admin: [\"\"]\n"));
  Start();
  auto ops = Client::Connect(Address(), {.token = "ops-token"});
  ASSERT_TRUE(ops.ok()) << ops.status();
  for (const char* name : {"jobs/a/x", "jobs/b/x"}) {
    ASSERT_TRUE(ops->CreateFactor(name, {.input_size = 1, .output_size = 1}).ok());
  }
  auto client = Client::Connect(Address(), {.token = "a-token"});
  ASSERT_TRUE(client.ok()) << client.status();
  UpdateStream stream = client->OpenUpdates();
  EXPECT_TRUE(stream.Open("jobs/a/x", 0, {}).ok());
  EXPECT_EQ(stream.Open("jobs/b/x", 0, {}).status().code(), absl::StatusCode::kPermissionDenied);
  // What there is not is no secret that it could find out.
  EXPECT_EQ(stream.Open("jobs/b/none", 0, {}).status().code(), absl::StatusCode::kPermissionDenied);
}

TEST_F(SecurityTest, ABatchForATowerThatIsNotOpenTellsNothing) {
  WriteIdentities(Entry("a", "    update: [jobs/a/]\n"));
  Start();
  const auto stub = v1::FactorService::NewStub(
      grpc::CreateChannel(Address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext context;
  context.AddMetadata("authorization", "Bearer a-token");
  const auto stream = stub->Update(&context);
  v1::UpdateRequest hello;
  hello.mutable_hello()->set_client_id(std::string(16, 'x'));
  hello.mutable_hello()->set_stream(1);
  ASSERT_TRUE(stream->Write(hello));
  v1::UpdateRequest batch;
  batch.mutable_header()->set_factor("jobs/b/x");
  batch.mutable_end();
  ASSERT_TRUE(stream->Write(batch));
  v1::UpdateResponse response;
  ASSERT_TRUE(stream->Read(&response));
  EXPECT_EQ(response.refused().status().code(), grpc::PERMISSION_DENIED) << response.DebugString();
  context.TryCancel();
  stream->Finish();
}

TEST_F(SecurityTest, AReloadCountsAtOnceAndForStreamsThatAreOpen) {
  const std::string ops = Entry("ops", "    admin: [\"\"]\n");
  WriteIdentities(Entry("a", "    update: [jobs/a/]\n") + ops);
  Start();
  auto client = Client::Connect(Address(), {.token = "a-token"});
  ASSERT_TRUE(client.ok()) << client.status();
  ASSERT_TRUE(client->CreateFactor("jobs/a/x", {.input_size = 1, .output_size = 1}).ok());
  UpdateStream stream = client->OpenUpdates();
  ASSERT_TRUE(stream.Open("jobs/a/x", 0, {}).ok());
  WriteIdentities(ops);
  ASSERT_TRUE(server_->Reload().ok());
  EXPECT_EQ(stream.Open("jobs/a/x", 0, {}).status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_EQ(client->Describe("jobs/a/x").status().code(), absl::StatusCode::kUnauthenticated);
  // A file that is no good changes nothing.
  WriteIdentities("  - name: broken\n");
  EXPECT_FALSE(server_->Reload().ok());
  EXPECT_TRUE(Client::Connect(Address(), {.token = "ops-token"})->Describe("jobs/a/x").ok());
}

TEST_F(SecurityTest, QuotasOfFactorsBytesAndStreams) {
  // A factor of 8 × 8 float32 elements may take twice 256 bytes.
  WriteIdentities(Entry("few", "    update: [few/]\n    quota: {factors: 2}\n") +
                  Entry("small", "    update: [small/]\n    quota: {bytes: 1100}\n") +
                  Entry("narrow", "    update: [narrow/]\n    quota: {streams: 1}\n"));
  Start();
  constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
  const FullyConnectedDiagonal kind{.input_size = 8, .output_size = 8};
  auto few = *Client::Connect(Address(), {.token = "few-token"});
  EXPECT_TRUE(few.CreateFactor("few/1", kind).ok());
  EXPECT_TRUE(few.CreateFactor("few/2", kind).ok());
  EXPECT_TRUE(few.CreateFactor("few/2", kind).ok());  // is there
  const auto third = few.CreateFactor("few/3", kind);
  EXPECT_EQ(third.status().code(), kExhausted);
  EXPECT_EQ(ErrorReason(third.status()), "QUOTA");

  auto small = *Client::Connect(Address(), {.token = "small-token"});
  EXPECT_TRUE(small.SetDamping("small/d", 1).ok());
  EXPECT_TRUE(small.CreateFactor("small/1", kind).ok());
  EXPECT_TRUE(small.Register("small/1", Matpower(-1, "small/d"), {}).ok());  // 256 more
  EXPECT_EQ(small.CreateFactor("small/2", kind).status().code(), kExhausted);
  EXPECT_TRUE(small.Register("small/1", Matpower(-2, "small/d"), {}).ok());
  EXPECT_EQ(small.Register("small/1", Matpower(-3, "small/d"), {}).status().code(), kExhausted);

  const auto stub = v1::FactorService::NewStub(
      grpc::CreateChannel(Address(), grpc::InsecureChannelCredentials()));
  grpc::ClientContext contexts[3];
  for (auto& context : contexts) context.AddMetadata("authorization", "Bearer narrow-token");
  const auto hello = [](uint64_t number) {
    v1::UpdateRequest request;
    request.mutable_hello()->set_client_id(std::string(16, static_cast<char>('a' + number)));
    request.mutable_hello()->set_stream(1);
    return request;
  };
  auto first = stub->Update(&contexts[0]);
  first->Write(hello(0));
  v1::UpdateRequest open;
  open.mutable_open()->set_factor("narrow/none");
  first->Write(open);
  v1::UpdateResponse response;
  ASSERT_TRUE(first->Read(&response));  // so it is there
  EXPECT_EQ(stub->Update(&contexts[1])->Finish().error_code(), grpc::RESOURCE_EXHAUSTED);
  first->WritesDone();
  while (first->Read(&response)) continue;
  EXPECT_TRUE(first->Finish().ok());
  // With the stream goes its place, a moment after its end is known.
  for (int i = 0;; ++i) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", "Bearer narrow-token");
    const auto next = stub->Update(&context);
    next->WritesDone();
    const grpc::Status status = next->Finish();
    if (status.ok()) break;
    ASSERT_LT(i, 1000) << status.error_message();
  }
}

TEST_F(SecurityTest, TokensAreReadAsTheRfcsSay) {
  WriteIdentities(Entry("ops", "    admin: [\"\"]\n"));
  Start();
  const auto stub = v1::FactorService::NewStub(
      grpc::CreateChannel(Address(), grpc::InsecureChannelCredentials()));
  const std::pair<const char*, grpc::StatusCode> headers[] = {
      {"Bearer ops-token", grpc::OK},
      {"bearer ops-token", grpc::OK},
      {"Bearer ops-token ", grpc::UNAUTHENTICATED},
      {"Bearer  ops-token", grpc::UNAUTHENTICATED},
      {"ops-token", grpc::UNAUTHENTICATED},
      {"Basic ops-token", grpc::UNAUTHENTICATED},
      {"Bearer", grpc::UNAUTHENTICATED},
      {"Bearer ", grpc::UNAUTHENTICATED},
  };
  for (const auto& [header, code] : headers) {
    grpc::ClientContext context;
    context.AddMetadata("authorization", header);
    v1::ListFactorsResponse response;
    EXPECT_EQ(stub->ListFactors(&context, {}, &response).error_code(), code) << header;
  }
  EXPECT_THAT(Metrics(), HasSubstr("fisherd_auth_failures_total{kind=\"unauthenticated\"} 6\n"));
  EXPECT_THAT(Metrics(), Not(HasSubstr("ops-token")));
}

TEST_F(SecurityTest, HealthNeedsNoIdentity) {
  WriteIdentities(Entry("ops", "    admin: [\"\"]\n"));
  Start();
  std::ostringstream out, err;
  EXPECT_EQ(ctl::Run({"--server", Address(), "health"}, out, err, false), ctl::kDone) << err.str();
}

TEST_F(SecurityTest, WhatAdministratorsDoIsLoggedAndNoSecret) {
  WriteIdentities(Entry("ops", "    admin: [\"\"]\n") + Entry("a", "    read: [\"\"]\n"));
  Start();
  testing::internal::CaptureStderr();
  std::ofstream(Path("token")) << "ops-token\n";
  std::ostringstream out, err;
  const std::vector<std::string> ops = {"--server", Address(), "--token-file", Path("token")};
  auto command = ops;
  command.insert(command.end(), {"delete", "no\nsuch"});
  EXPECT_EQ(ctl::Run(command, out, err, false), ctl::kRpcError);
  command = ops;
  command.insert(command.end(), {"snapshot"});
  EXPECT_EQ(ctl::Run(command, out, err, false), ctl::kDone) << err.str();
  auto reader = *Client::Connect(Address(), {.token = "a-token"});
  EXPECT_FALSE(reader.Delete("x").ok());
  EXPECT_FALSE(Client::Connect(Address())->Delete("y").ok());
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log,
              HasSubstr("AUDIT administration method=DeleteFactor target=\"no\\nsuch\" peer="));
  EXPECT_THAT(log, HasSubstr("method=Snapshot target=\"\" "));
  EXPECT_THAT(log, HasSubstr("status=OK identity=ops"));
  EXPECT_THAT(log, HasSubstr("status=PERMISSION_DENIED identity=a"));
  EXPECT_THAT(log, HasSubstr("target=\"y\" "));
  EXPECT_THAT(log, HasSubstr("status=UNAUTHENTICATED\n"));
  EXPECT_THAT(log, Not(HasSubstr("token")));
}

// ---- TLS

TEST_F(SecurityTest, TheMatrixOfTls) {
  MakeAuthority("ca");
  MakeAuthority("stranger");
  MakeCertificate("ca", "server", "DNS:localhost,IP:127.0.0.1");
  MakeCertificate("ca", "trainer", "DNS:trainer.example");
  MakeCertificate("stranger", "imposter", "DNS:trainer.example");
  MakeCertificate("ca", "old", "DNS:trainer.example", -1);
  UseTls("server", "ca");
  Start();
  EXPECT_TRUE(TryCall({.tls = TlsOf("ca", "trainer")}).ok());
  constexpr auto kUnavailable = absl::StatusCode::kUnavailable;
  EXPECT_EQ(TryCall({.tls = TlsOf("stranger", "trainer")}).code(), kUnavailable);  // wrong CA
  EXPECT_EQ(TryCall({.tls = TlsOf("ca")}).code(), kUnavailable);  // no certificate of its own
  EXPECT_EQ(TryCall({.tls = TlsOf("ca", "imposter")}).code(), kUnavailable);
  EXPECT_EQ(TryCall({.tls = TlsOf("ca", "old")}).code(), kUnavailable);  // expired
  EXPECT_EQ(TryCall({}).code(), kUnavailable);                           // in the clear
  Tls named = TlsOf("ca", "trainer");
  named.server_name = "fisherd.example";  // which the server's certificate does not have
  EXPECT_EQ(TryCall({.tls = named}).code(), kUnavailable);
  // What is older than TLS 1.2.
  const std::string old = "openssl s_client -connect " + Address() + " -cert " +
                          Path("trainer.pem") + " -key " + Path("trainer.key") +
                          " -cipher ALL:@SECLEVEL=0 ";
  EXPECT_NE(std::system((old + "-tls1_1 </dev/null >/dev/null 2>&1").c_str()), 0);
  EXPECT_EQ(std::system((old + "-tls1_2 -alpn h2 </dev/null >/dev/null 2>&1").c_str()), 0);
  EXPECT_THAT(Metrics(), HasSubstr("\nfisherd_tls_certificate_expiry_timestamp_seconds "));
  EXPECT_TRUE(TryCall({.tls = TlsOf("ca", "trainer")}).ok());  // it lives
}

TEST_F(SecurityTest, AClientThatExpectsTlsIsNotServedInTheClear) {
  MakeAuthority("ca");
  Start();
  EXPECT_EQ(TryCall({.tls = TlsOf("ca")}).code(), absl::StatusCode::kUnavailable);
}

TEST_F(SecurityTest, AnExpiredServerIsNotBelieved) {
  MakeAuthority("ca");
  MakeCertificate("ca", "server", "IP:127.0.0.1", -1);
  UseTls("server");
  Start();
  EXPECT_EQ(TryCall({.tls = TlsOf("ca")}).code(), absl::StatusCode::kUnavailable);
}

TEST_F(SecurityTest, ACertificateIsAnIdentity) {
  MakeAuthority("ca");
  MakeCertificate("ca", "server", "IP:127.0.0.1");
  MakeCertificate("ca", "trainer", "DNS:trainer.example");
  MakeCertificate("ca", "other", "DNS:other.example,URI:spiffe://example/other");
  WriteIdentities(
      "  - name: trainer\n    certificates: [trainer.example]\n    update: [jobs/]\n"
      "  - name: other\n    certificates: [\"spiffe://example/other\"]\n    update: [others/]\n" +
      Entry("ops", "    admin: [\"\"]\n"));
  UseTls("server", "ca");
  Start();
  EXPECT_TRUE(TryCall({.tls = TlsOf("ca", "trainer")}).ok());
  EXPECT_EQ(TryCall({.tls = TlsOf("ca", "other")}).code(), absl::StatusCode::kPermissionDenied);
  // A token comes before the certificate, and has to be good.
  EXPECT_TRUE(TryCall({.tls = TlsOf("ca", "other"), .token = "ops-token"}).ok());
  EXPECT_EQ(TryCall({.tls = TlsOf("ca", "trainer"), .token = "bad-token"}).code(),
            absl::StatusCode::kUnauthenticated);
}

TEST_F(SecurityTest, CertificatesAreReadAgainWhileItRuns) {
  MakeAuthority("ca");
  MakeAuthority("next");
  MakeCertificate("ca", "server", "IP:127.0.0.1");
  MakeCertificate("next", "renewed", "IP:127.0.0.1");
  UseTls("server");
  Start();
  ASSERT_TRUE(TryCall({.tls = TlsOf("ca")}).ok());
  for (const char* suffix : {".key", ".pem"}) {
    std::filesystem::rename(Path(std::string("renewed") + suffix),
                            Path(std::string("server") + suffix));
  }
  // Until it looks, which it does every few seconds.
  for (int i = 0; !TryCall({.tls = TlsOf("next")}).ok(); ++i) {
    ASSERT_LT(i, 100);
  }
}

TEST_F(SecurityTest, WhatIsNoCertificateIsSaidAtTheStart) {
  MakeAuthority("ca");
  MakeAuthority("other");
  options_.tls.certificate = Path("ca.pem");
  options_.tls.key = Path("other.key");
  EXPECT_THAT(std::string(server::Server::Start(options_).status().message()),
              HasSubstr("is not the key of the certificate"));
  options_.tls.key = Path("none.key");
  EXPECT_THAT(std::string(server::Server::Start(options_).status().message()),
              HasSubstr("cannot be read as a private key"));
  options_.tls.certificate = Path("ca.key");
  EXPECT_THAT(std::string(server::Server::Start(options_).status().message()),
              HasSubstr("cannot be read as a certificate"));
}

TEST_F(SecurityTest, ATokenDoesNotTravelInTheClear) {
  EXPECT_EQ(Client::Connect("192.0.2.1:7600", {.token = "t"}).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace fisherd
