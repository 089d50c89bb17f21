#include "server/server.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <map>
#include <mutex>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "core/backend_cpu.h"
#include "core/compute_pool.h"
#include "core/devices.h"
#include "core/timer_queue.h"
#include "grpcpp/ext/channelz_service_plugin.h"
#include "grpcpp/ext/proto_server_reflection_plugin.h"
#include "grpcpp/health_check_service_interface.h"
#include "grpcpp/security/server_credentials.h"
#include "grpcpp/server.h"
#include "grpcpp/server_builder.h"
#include "server/auth/guard.h"
#include "server/auth/tls.h"
#include "server/call_metrics.h"
#include "server/data_service.h"
#include "server/factor_service.h"
#include "server/http_server.h"
#include "server/log.h"
#include "server/metrics.h"
#include "server/readiness.h"
#include "server/session_table.h"
#include "server/shared_memory_door.h"
#include "server/status_page.h"
#include "server/store/store.h"
#include "server/unix_socket.h"
#include "server/waiting_reads.h"

namespace fisherd::server {
namespace {

// A connection whose peer has died without a word is noticed after the one and the other.
constexpr int kKeepaliveTimeMs = 60'000;
constexpr int kKeepaliveTimeoutMs = 20'000;
// Clients may ask as often for signs of life, also while they have no call.
constexpr int kLeastPingIntervalMs = 10'000;
// Who connects and then says nothing, or too slowly, has so long to become a client.
constexpr int kHandshakeTimeoutMs = 20'000;
// A connection without calls is closed after so long; clients open another when they need it.
constexpr int kMaxIdleMs = 30 * 60'000;
// On one connection; a trainer needs a handful, and each costs some 14 KiB.
constexpr int kMaxConcurrentStreams = 256;

// A product of so many terms is done in some 20 µs, sooner than another thread has woken up.
constexpr double kSmallWork = 1 << 21;

// gRPC's plugins are chosen once a process.
void EnablePlugins(const Options& options) {
  static std::once_flag once;
  std::call_once(once, [&options] {
    grpc::EnableDefaultHealthCheckService(true);
    grpc::reflection::InitProtoReflectionServerBuilderPlugin();
    if (options.channelz) grpc::channelz::experimental::InitChannelzService();
  });
}

core::Devices FindDevices(const Options& options) {
  if (options.backend == core::BackendChoice::kCpu) return {};
  core::Devices devices =
      core::FindDevices({.memory = options.gpu_memory, .tf32 = options.gpu_tf32});
  if (devices.found.empty()) LogInfo("factors live on the processor: ", devices.why_none);
  for (const auto& device : devices.found) {
    LogInfo("factors live on ", device->name(), ", which has ",
            FormatBytes(device->state_budget() >> 20 << 20), " for them");
  }
  return devices;
}

core::RegistryOptions RegistryOptionsOf(const Options& options, const Durability& durability,
                                        core::Backend* backend, const core::Devices& devices,
                                        core::ComputePool* pool, core::TimerQueue* timers) {
  std::vector<core::BackendMemory> memories;
  for (const auto& device : devices.found) {
    memories.push_back({device.get(), device->state_budget()});
  }
  return {.backend = backend,
          .pool = pool,
          .state_budget = options.state_budget,
          .devices = std::move(memories),
          .usual_backend = options.backend,
          .batch_budget = options.batch_budget,
          .factor_batch_limit =
              options.factor_batch_limit > 0 ? options.factor_batch_limit : options.batch_budget,
          .small_work = kSmallWork,
          .window = options.window,
          .gather_timeout = options.gather_timeout,
          .timers = timers,
          .store = durability.store,
          .durability =
              durability.store != nullptr ? options.durability : core::DurabilityLevel::kMemory,
          .recovery_timeout = options.recovery_timeout,
          .epoch = durability.epoch,
          .first_incarnation = durability.first_incarnation};
}

// Without a data directory both numbers start from the clock, and so above those of the server
// before (SPEC §5). No server creates a million factors a second.
Durability NumberedByTheClock(Durability durability) {
  const absl::Time now = absl::Now();
  durability.epoch = static_cast<uint64_t>(absl::ToUnixMillis(now));
  durability.first_incarnation = static_cast<uint64_t>(absl::ToUnixMicros(now));
  return durability;
}

absl::StatusOr<std::unique_ptr<Store>> OpenStore(const Options& options) {
  return Store::Open({.directory = options.data_dir,
                      .snapshot_interval = options.snapshot_interval,
                      .disk_reserve = options.disk_reserve});
}

Durability DurabilityOf(Store& store) {
  return {.store = &store,
          .restore = [&store](core::FactorRegistry& registry) { return store.Start(&registry); },
          .epoch = store.epoch(),
          .first_incarnation = store.first_incarnation()};
}

// Whoever waits for the file never sees it half written.
absl::Status WritePortFile(const std::string& path, int port) {
  const std::string temporary = path + ".tmp";
  std::ofstream file(temporary);
  file << port << '\n';
  file.close();
  if (!file || std::rename(temporary.c_str(), path.c_str()) != 0) {
    return absl::UnavailableError(absl::StrCat("cannot write the port file ", path));
  }
  return absl::OkStatus();
}

}  // namespace

void SetTransport(grpc::ServerBuilder& builder) {
  // gRPC unpacks a message before it looks at its size, and tensors do not get smaller.
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_GZIP, false);
  builder.SetCompressionAlgorithmSupportStatus(GRPC_COMPRESS_DEFLATE, false);
  builder.SetMaxReceiveMessageSize(kMaxMessageBytes);
  // With it, a stream that nobody reads takes in tens of MiB; without, little more than a message.
  builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveTimeMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kLeastPingIntervalMs);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONNECTION_IDLE_MS, kMaxIdleMs);
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kMaxConcurrentStreams);
}

struct Server::Rooms {
  Rooms(const Options& options, const Durability& durability, std::unique_ptr<Store> store,
        std::unique_ptr<SharedMemoryDoor> door, std::unique_ptr<Guard> guard)
      : store(std::move(store)),
        pool(std::make_unique<core::ComputePool>(options.compute_threads)),
        backend(pool.get()),
        devices(FindDevices(options)),
        timers(std::make_unique<core::TimerQueue>()),
        registry(
            RegistryOptionsOf(options, durability, &backend, devices, pool.get(), timers.get())),
        sessions(options.max_streams),
        once_calls(options.max_streams),
        door(std::move(door)),
        guard(std::move(guard)),
        call_metrics(absl::StrCat("/", v1::FactorService::service_full_name(), "/Update")),
        factor_service(this->guard.get(), &registry, &sessions, &once_calls,
                       {.registry = &registry,
                        .waiting_reads = &waiting_reads,
                        .stall_timeout = options.read_stall_timeout},
                       this->door.get(),
                       options.http.empty() ? nullptr : &call_metrics),  // else nobody asks
        data_service(this->guard.get(), this->store.get()),
        metrics({.registry = &registry,
                 .pool = pool.get(),
                 .readiness = &readiness,
                 .store = this->store.get(),
                 .sessions = &sessions,
                 .calls = &call_metrics,
                 .guard = this->guard.get(),
                 .tls_certificate = options.tls.certificate,
                 .backend = backend.name(),
                 .devices = &devices,
                 .factor_prefixes = options.metrics_factor_prefixes}) {}

  // Without calls by now.
  ~Rooms() {
    if (store != nullptr) store->Close();  // calls back on the pool until then
    timers = nullptr;                      // schedules on the pool
    pool = nullptr;                        // runs what factors have scheduled until it goes
  }

  std::string WhyNotReady() const {
    std::string why_not = readiness.why_not();
    if (store == nullptr || why_not.empty()) return why_not;
    const Recovery recovery = store->recovery();
    if (recovery.done || recovery.factors == 0) return why_not;
    return absl::StrCat(why_not, ": ", recovery.restored + recovery.damaged, " of ",
                        recovery.factors, " factors");
  }

  void AddStatusPages(std::map<std::string, HttpServer::Handler>& handlers) {
    status_pages = std::make_unique<StatusPages>(
        &registry, [this] { return WhyNotReady(); }, backend.name());
    handlers["/statusz"] = [this](const HttpServer::Request& request) {
      return status_pages->Overview(request);
    };
    handlers["/statusz/factor"] = [this](const HttpServer::Request& request) {
      return status_pages->Factor(request);
    };
  }

  // Null: no data directory. Outlives the factors; what it calls back of theirs ends with the pool.
  const std::unique_ptr<Store> store;
  std::unique_ptr<core::ComputePool> pool;
  core::BackendCpu backend;
  const core::Devices devices;
  std::unique_ptr<core::TimerQueue> timers;
  core::FactorRegistry registry;
  SessionTable sessions;
  OnceTable once_calls;
  WaitingReads waiting_reads;
  const std::unique_ptr<SharedMemoryDoor> door;  // null: no memory is shared
  const std::unique_ptr<Guard> guard;
  CallMetrics call_metrics;
  FactorService factor_service;
  DataService data_service;
  Readiness readiness;
  Metrics metrics;
  std::unique_ptr<StatusPages> status_pages;  // null where they are not shown
};

Server::Server(std::unique_ptr<Rooms> rooms) : rooms_(std::move(rooms)) {}

Server::~Server() { Shutdown(absl::ZeroDuration()); }

std::string Server::backend_name() const {
  std::string name = rooms_->backend.name();
  for (const auto& device : rooms_->devices.found) absl::StrAppend(&name, ", ", device->name());
  return name;
}

absl::StatusOr<std::unique_ptr<Server>> Server::Start(const Options& options,
                                                      const Durability& given) {
  Durability durability = NumberedByTheClock(given);
  std::unique_ptr<Store> store;
  if (!options.data_dir.empty()) {
    auto opened = OpenStore(options);
    if (!opened.ok()) return opened.status();
    store = *std::move(opened);
    durability = DurabilityOf(*store);
  }
  std::unique_ptr<SharedMemoryDoor> door;
  if (!options.shared_memory.empty()) {
    auto opened =
        SharedMemoryDoor::Open({.path = options.shared_memory,
                                .limit = options.shared_memory_limit,
                                .max_connections = static_cast<size_t>(options.max_streams)});
    if (!opened.ok()) return opened.status();
    door = *std::move(opened);
  }
  auto guard = Guard::Open(options.identities);
  if (!guard.ok()) return guard.status();
  std::unique_ptr<Server> server(new Server(std::make_unique<Rooms>(
      options, durability, std::move(store), std::move(door), *std::move(guard))));
  if (options.backend == core::BackendChoice::kCuda && server->rooms_->devices.found.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("backend is cuda: ", server->rooms_->devices.why_none));
  }
  if (absl::Status status = server->ListenForHttp(options); !status.ok()) return status;
  if (durability.restore != nullptr) {
    server->rooms_->readiness.Set("recovering");
    absl::Status status = durability.restore(server->rooms_->registry);
    if (!status.ok()) return status;
  }
  if (absl::Status status = server->Listen(options); !status.ok()) return status;
  server->rooms_->readiness.Set("");
  return server;
}

int Server::http_port() const { return http_server_ == nullptr ? 0 : http_server_->port(); }

absl::Status Server::ListenForHttp(const Options& options) {
  if (options.http.empty()) return absl::OkStatus();
  Rooms& rooms = *rooms_;
  using Request = HttpServer::Request;
  using Response = HttpServer::Response;
  std::map<std::string, HttpServer::Handler> handlers = {
      {"/livez", [](const Request&) { return Response{.body = "ok\n"}; }},
      {"/readyz",
       [&rooms](const Request&) {
         const std::string why_not = rooms.WhyNotReady();
         if (why_not.empty()) return Response{.body = "ok\n"};
         return Response{.status = 503, .body = why_not + "\n"};
       }},
      {"/metrics", [&rooms](const Request&) {
         return Response{.content_type = Metrics::kContentType, .body = rooms.metrics.Text()};
       }}};
  if (options.statusz == Statusz::kAlways ||
      (options.statusz == Statusz::kLocal && IsLocal(options.http))) {
    rooms.AddStatusPages(handlers);
  }
  auto started = HttpServer::Start(options.http, std::move(handlers));
  if (!started.ok()) return started.status();
  http_server_ = *std::move(started);
  return absl::OkStatus();
}

absl::Status Server::Reload() { return rooms_->guard->Reload(); }

absl::Status Server::Listen(const Options& options) {
  EnablePlugins(options);
  std::shared_ptr<grpc::ServerCredentials> credentials = grpc::InsecureServerCredentials();
  if (!options.tls.certificate.empty()) {
    auto tls = MakeTlsCredentials(options.tls);
    if (!tls.ok()) return tls.status();
    credentials = *std::move(tls);
  }
  grpc::ServerBuilder builder;
  std::vector<int> ports(options.listen.size());
  for (size_t i = 0; i < ports.size(); ++i) {
    if (const auto path = SocketPath(options.listen[i])) {
      if (absl::Status status = CheckSocketIsFree(*path); !status.ok()) return status;
      builder.AddListeningPort(options.listen[i], grpc::InsecureServerCredentials(), &ports[i]);
    } else {
      builder.AddListeningPort(options.listen[i], credentials, &ports[i]);
    }
  }
  if (http_server_ != nullptr) {  // else nobody asks
    std::vector<std::unique_ptr<grpc::experimental::ServerInterceptorFactoryInterface>> creators;
    creators.push_back(rooms_->call_metrics.NewInterceptorFactory());
    builder.experimental().SetInterceptorCreators(std::move(creators));
  }
  builder.RegisterService(&rooms_->factor_service);
  builder.RegisterService(&rooms_->data_service);
  // For the calls that wait for disks: a thread each, above one that listens.
  builder.SetSyncServerOption(grpc::ServerBuilder::NUM_CQS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MIN_POLLERS, 1);
  builder.SetSyncServerOption(grpc::ServerBuilder::MAX_POLLERS, 1);
  SetTransport(builder);
  // Two servers on one port would share its clients between them.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  grpc_server_ = builder.BuildAndStart();
  // gRPC stops at the first address that it cannot have.
  const auto failed = std::find(ports.begin(), ports.end(), 0);
  if (grpc_server_ == nullptr || failed != ports.end()) {
    const size_t i = std::min<size_t>(failed - ports.begin(), ports.size() - 1);
    return absl::UnavailableError(absl::StrCat("cannot listen at ", options.listen[i],
                                               ": the address is not this machine's, or is taken"));
  }
  grpc_server_->GetHealthCheckService()->SetServingStatus(v1::FactorService::service_full_name(),
                                                          true);
  return Announce(options, ports);
}

absl::Status Server::Announce(const Options& options, const std::vector<int>& ports) {
  for (size_t i = 0; i < ports.size(); ++i) {
    if (const auto path = SocketPath(options.listen[i])) {
      if (absl::Status status = SetSocketMode(*path); !status.ok()) return status;
    } else if (port_ == 0) {
      port_ = ports[i];
    }
  }
  if (options.port_file.empty()) return absl::OkStatus();
  if (port_ == 0) {
    return absl::InvalidArgumentError("there is no port for the port file: listen at a HOST:PORT");
  }
  return WritePortFile(options.port_file, port_);
}

std::shared_ptr<grpc::Channel> Server::InProcessChannel() {
  return grpc_server_->InProcessChannel(grpc::ChannelArguments());
}

void Server::Shutdown(absl::Duration grace) {
  if (grpc_server_ == nullptr) return;
  grpc_server_->GetHealthCheckService()->Shutdown();
  rooms_->readiness.Set("shutting down");
  rooms_->sessions.Shutdown();
  rooms_->once_calls.Shutdown();
  rooms_->waiting_reads.Shutdown();
  rooms_->registry.watchers().Shutdown();
  grpc_server_->Shutdown(absl::ToChronoTime(absl::Now() + grace));
  grpc_server_->Wait();
  grpc_server_ = nullptr;
  if (rooms_->store != nullptr) rooms_->store->Close();
}

}  // namespace fisherd::server
