#include "tests/bench/stream/stream.h"

#include <netinet/in.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <barrier>
#include <chrono>
#include <memory>
#include <numeric>
#include <thread>

#include "absl/strings/str_cat.h"
#include "server/options.h"
#include "tests/bench/core/die.h"
#include "tests/bench/core/timing.h"
#include "tests/bench/stream/trainers.h"
#include "tests/http_get.h"

namespace fisherd::bench {
namespace {

constexpr int64_t KiB = 1024;
constexpr int64_t MiB = 1024 * KiB;
constexpr int64_t kMaxBatchesPerTurn = 16'000;

double OwnCpuSeconds() {
  timespec time;
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + time.tv_nsec * 1e-9;
}

using Trainers = std::vector<std::unique_ptr<Trainer>>;

struct Effort {
  int rounds;
  int64_t turn_bytes;
  int round_trips;  // a round
};

Effort EffortOf(const StreamCase& sizes, bool quick) {
  const int64_t bytes = (quick ? 128 : 512) * MiB;
  return {.rounds = quick ? 3 : 7,
          .turn_bytes = std::min(bytes, kMaxBatchesPerTurn * sizes.batch_bytes),
          .round_trips = static_cast<int>(
              std::clamp<int64_t>(bytes / 4 / sizes.batch_bytes, 10, quick ? 300 : 1000))};
}

// A server with its trainers, and what was measured of it so far.
class Contestant {
 public:
  Contestant(const std::vector<std::string>& command, Transport transport, const StreamCase& sizes)
      : sizes_(sizes), server_(command, transport) {}

  const std::string& address() const { return server_.address(); }
  void Add(std::unique_ptr<Trainer> trainer) { trainers_.push_back(std::move(trainer)); }

  // Every trainer pushes as often, then waits until all has ended.
  void Turn(int64_t bytes, bool counts) {
    const int64_t round_bytes = sizes_.batch_bytes * sizes_.factors * sizes_.trainers;
    const int64_t pushes = std::max<int64_t>(2, bytes / round_bytes);
    const double cpu = server_.cpu_seconds();
    const double own_cpu = OwnCpuSeconds();
    std::barrier gate(static_cast<std::ptrdiff_t>(trainers_.size() + 1));
    std::vector<std::jthread> threads;
    for (const auto& trainer : trainers_) {
      threads.emplace_back([&gate, &trainer, pushes] {
        gate.arrive_and_wait();
        for (int64_t push = 0; push < pushes; ++push) trainer->Push();
        trainer->Await();
      });
    }
    gate.arrive_and_wait();
    const double seconds = Seconds([&] { threads.clear(); });
    if (!counts) return;
    const double moved = static_cast<double>(pushes * round_bytes);
    rates_.push_back(moved / seconds);
    cpu_.push_back((server_.cpu_seconds() - cpu) / (moved / 1e9));
    own_cpu_.push_back((OwnCpuSeconds() - own_cpu) / (moved / 1e9));
  }

  double last_rate() const { return rates_.back(); }

  void PingPong(int times) {
    for (int time = 0; time < times; ++time) {
      round_trips_.push_back(Seconds([&] {
        trainers_[0]->Push();
        trainers_[0]->Await();
      }));
    }
  }

  StreamFigures Figures() {
    StreamFigures figures = {.bytes_per_second = Median(rates_),
                             .cpu_seconds_per_gb = Median(cpu_),
                             .trainers_cpu_seconds_per_gb = Median(own_cpu_),
                             .peak_resident_bytes = server_.peak_resident_bytes()};
    if (!round_trips_.empty()) {
      std::ranges::sort(round_trips_);
      figures.p50 = round_trips_[round_trips_.size() / 2];
      figures.p99 = round_trips_[round_trips_.size() * 99 / 100];
    }
    return figures;
  }

 private:
  const StreamCase sizes_;
  ServerProcess server_;
  Trainers trainers_;
  std::vector<double> rates_;
  std::vector<double> cpu_;
  std::vector<double> own_cpu_;
  std::vector<double> round_trips_;
};

void AddOurTrainers(const StreamCase& sizes, Contestant& ours) {
  Client client = Client::FromChannel(OwnChannel(ours.address()));
  CreateFactors(client, sizes.factors, {.towers = sizes.trainers});
  std::vector<int> factors(sizes.factors);
  std::iota(factors.begin(), factors.end(), 0);
  for (int tower = 0; tower < sizes.trainers; ++tower) {
    ours.Add(std::make_unique<OurTrainer>(OurOptions{.address = ours.address(),
                                                     .factors = factors,
                                                     .tower = tower,
                                                     .batch_bytes = sizes.batch_bytes}));
  }
}

int FreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  if (bind(fd, reinterpret_cast<sockaddr*>(&address), size) != 0 ||
      getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) {
    Die("there is no free port");
  }
  close(fd);
  return ntohs(address.sin_port);
}

MeteredResult MeasureMeteredCase(const Servers& servers, const StreamCase& sizes, bool quick) {
  const int port = FreePort();
  std::vector<std::string> scraped_command = servers.ours;
  scraped_command.push_back(absl::StrCat("--http=127.0.0.1:", port));
  Contestant scraped(scraped_command, sizes.transport, sizes);
  Contestant plain(servers.ours, sizes.transport, sizes);
  AddOurTrainers(sizes, scraped);
  AddOurTrainers(sizes, plain);
  std::atomic<bool> stopping = false;
  std::jthread scraper([&] {
    while (!stopping) {
      if (HttpGet(port, "/metrics").empty()) Die("the server cannot be scraped");
      for (int i = 0; i < 10 && !stopping; ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
      }
    }
  });
  std::vector<double> ratios;
  const Effort effort = EffortOf(sizes, quick);
  const int rounds = quick ? 11 : 31;
  for (int round = -1; round < rounds; ++round) {
    const bool counts = round >= 0;
    // Who comes first changes, so that neither gains by it.
    Contestant* const turns[] = {round % 2 == 0 ? &scraped : &plain,
                                 round % 2 == 0 ? &plain : &scraped};
    for (Contestant* const turn : turns) turn->Turn(effort.turn_bytes / 2, counts);
    if (counts) ratios.push_back(scraped.last_rate() / plain.last_rate());
  }
  stopping = true;
  return {.sizes = sizes,
          .scraped = scraped.Figures().bytes_per_second,
          .plain = plain.Figures().bytes_per_second,
          .ratio = Median(ratios)};
}

}  // namespace

std::vector<MeteredResult> MeasureMetered(const Servers& servers, bool quick) {
  std::vector<MeteredResult> results;
  for (const int64_t batch : {16 * KiB, 256 * KiB, MiB}) {
    results.push_back(MeasureMeteredCase(servers, {Transport::kTcp, batch}, quick));
  }
  return results;
}

std::string_view StreamCase::TransportName() const {
  return transport == Transport::kTcp ? "tcp" : transport == Transport::kUnix ? "unix" : "shm";
}

std::string StreamCase::Name() const {
  return absl::StrCat(std::string(TransportName()), "/",
                      std::string(server::FormatBytes(batch_bytes)), "/t", trainers, "/f", factors);
}

std::vector<StreamCase> StreamCases(bool quick) {
  const Transport tcp = Transport::kTcp;
  const Transport unix_socket = Transport::kUnix;
  const Transport shared = Transport::kShared;
  const std::vector<int64_t> batches = {16 * KiB, 256 * KiB, MiB, 16 * MiB};
  std::vector<StreamCase> cases;
  for (const int64_t batch : batches) cases.push_back({tcp, batch});
  if (quick) {
    cases.insert(cases.end(), {{tcp, 256 * KiB, 1, 8},
                               {tcp, 256 * KiB, 4},
                               {unix_socket, 256 * KiB},
                               {unix_socket, MiB},
                               {shared, 256 * KiB},
                               {shared, MiB},
                               {shared, 16 * MiB}});
    return cases;
  }
  for (const int64_t batch : batches) cases.push_back({tcp, batch, 1, 8});
  for (const int trainers : {4, 16, 64}) {
    for (const int64_t batch : batches) {
      // More would be a benchmark of the trainers' memory.
      if (batch * trainers <= 256 * MiB) cases.push_back({tcp, batch, trainers});
    }
  }
  cases.push_back({tcp, 256 * KiB, 16, 8});
  for (const int64_t batch : batches) cases.push_back({unix_socket, batch});
  cases.insert(cases.end(), {{unix_socket, 256 * KiB, 4}, {unix_socket, MiB, 4}});
  for (const int64_t batch : {16 * KiB, 64 * KiB, 256 * KiB, MiB, 16 * MiB}) {
    cases.push_back({shared, batch});
  }
  cases.insert(cases.end(), {{shared, MiB, 1, 8}, {shared, 256 * KiB, 4}, {shared, MiB, 4}});
  return cases;
}

StreamResult MeasureStream(const Servers& servers, const StreamCase& sizes, bool quick) {
  const Effort effort = EffortOf(sizes, quick);
  const bool shares = sizes.transport == Transport::kShared;
  Contestant ours(servers.ours, sizes.transport, sizes);
  Contestant raw(servers.raw, shares ? Transport::kTcp : sizes.transport, sizes);
  std::optional<Contestant> tcp;
  AddOurTrainers(sizes, ours);
  if (shares) AddOurTrainers(sizes, tcp.emplace(servers.ours, Transport::kTcp, sizes));
  for (int trainer = 0; trainer < sizes.trainers; ++trainer) {
    raw.Add(MakeRawTrainer(raw.address(), sizes.factors, sizes.batch_bytes));
  }
  InProcess in_process(sizes.factors, sizes.trainers, sizes.batch_bytes);
  std::vector<double> in_process_rates;
  const bool ping_pong = sizes.trainers == 1 && sizes.factors == 1;
  for (int round = -1; round < effort.rounds; ++round) {  // the first warms up
    const bool counts = round >= 0;
    // As much as touches all the memory that is used again from then on.
    const int64_t bytes =
        counts ? effort.turn_bytes : std::max(effort.turn_bytes / 4, 8 * sizes.batch_bytes);
    ours.Turn(bytes, counts);
    if (tcp) tcp->Turn(bytes, counts);
    raw.Turn(bytes, counts);
    const double rate = in_process.Turn(bytes / 2);
    if (!counts) continue;
    in_process_rates.push_back(rate);
    if (!ping_pong) continue;
    ours.PingPong(effort.round_trips);
    if (tcp) tcp->PingPong(effort.round_trips);
    raw.PingPong(effort.round_trips);
  }
  return {.sizes = sizes,
          .ours = ours.Figures(),
          .raw = raw.Figures(),
          .tcp = tcp ? std::optional(tcp->Figures()) : std::nullopt,
          .in_process = Median(in_process_rates)};
}

}  // namespace fisherd::bench
