#include "server/auth/tls.h"

#include <openssl/pem.h>
#include <openssl/x509.h>

#include <cstdio>
#include <ctime>
#include <vector>

#include "absl/strings/str_cat.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/security/tls_certificate_provider.h"
#include "grpcpp/security/tls_credentials_options.h"

namespace fisherd::server {
namespace {

template <typename T, void (*kFree)(T*)>
struct Freed {
  void operator()(T* object) const { kFree(object); }
};
using Certificate = std::unique_ptr<X509, Freed<X509, X509_free>>;
using PrivateKey = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY, EVP_PKEY_free>>;
struct Closed {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, Closed>;

Certificate ReadCertificate(const std::string& path) {
  const File file(std::fopen(path.c_str(), "re"));
  return Certificate(file ? PEM_read_X509(file.get(), nullptr, nullptr, nullptr) : nullptr);
}

// Nobody is asked for a passphrase.
int NoPassphrase(char*, int, int, void*) { return 0; }

PrivateKey ReadKey(const std::string& path) {
  const File file(std::fopen(path.c_str(), "re"));
  return PrivateKey(file ? PEM_read_PrivateKey(file.get(), nullptr, NoPassphrase, nullptr)
                         : nullptr);
}

absl::Status Unreadable(const char* what, const std::string& path) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, " cannot be read as a ", what, " in PEM form"));
}

}  // namespace

absl::StatusOr<std::shared_ptr<grpc::ServerCredentials>> MakeTlsCredentials(const TlsFiles& files) {
  const Certificate certificate = ReadCertificate(files.certificate);
  if (certificate == nullptr) return Unreadable("certificate", files.certificate);
  const PrivateKey key = ReadKey(files.key);
  if (key == nullptr) return Unreadable("private key without a passphrase", files.key);
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(files.key, " is not the key of the certificate ", files.certificate));
  }
  const bool asks = !files.client_ca.empty();
  if (asks && ReadCertificate(files.client_ca) == nullptr) {
    return Unreadable("certificate", files.client_ca);
  }
  const auto provider = std::make_shared<grpc::experimental::FileWatcherCertificateProvider>(
      files.key, files.certificate, files.client_ca,
      static_cast<unsigned>(absl::ToInt64Seconds(kTlsRefresh)));
  grpc::experimental::TlsServerCredentialsOptions options(provider);
  options.watch_identity_key_cert_pairs();
  if (asks) options.watch_root_certs();
  options.set_cert_request_type(asks ? GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY
                                     : GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE);
  return grpc::experimental::TlsServerCredentials(options);
}

std::optional<absl::Time> ExpiryOf(const std::string& path) {
  const Certificate certificate = ReadCertificate(path);
  if (certificate == nullptr) return std::nullopt;
  std::tm end = {};
  if (ASN1_TIME_to_tm(X509_get0_notAfter(certificate.get()), &end) != 1) return std::nullopt;
  return absl::FromTimeT(timegm(&end));
}

}  // namespace fisherd::server
