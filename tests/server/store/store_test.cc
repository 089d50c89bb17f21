#include "server/store/store.h"

#include <filesystem>
#include <fstream>

#include "server/store/disk_error.h"
#include "tests/core/factor_harness.h"
#include "tests/long_tests.h"
#include "tests/test_path.h"

namespace fisherd::server {
namespace {

using core::DurabilityLevel;
using core::Factor;
using core::Floats;

class DirectoryHolder {
 protected:
  DirectoryHolder() {
    std::filesystem::remove_all(directory_);
    store_ = OpenStore();
  }
  ~DirectoryHolder() { std::filesystem::remove_all(directory_); }

  std::unique_ptr<Store> OpenStore() const {
    auto store = Store::Open({.directory = directory_,
                              .snapshot_interval = absl::Hours(1),
                              .disk_reserve = disk_reserve_});
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }

  const std::string directory_ = TestPath();
  int64_t disk_reserve_ = 1;
  std::unique_ptr<Store> store_;
};

// One server after another on one directory, within a process.
class StoreTest : protected DirectoryHolder, public core::FactorTest {
 protected:
  StoreTest() { Begin(); }
  ~StoreTest() override { End(); }

  core::RegistryOptions OptionsOn(Store& store) {
    return {.backend = &backend_,
            .pool = &*pool_,
            .state_budget = 1 << 24,
            .batch_budget = 1 << 24,
            .timers = &*timers_,
            .store = &store,
            .durability = DurabilityLevel::kSnapshot,
            .epoch = store.epoch(),
            .first_incarnation = store.first_incarnation()};
  }
  void Begin() {
    registry_.emplace(OptionsOn(*store_));
    const absl::Status started = store_->Start(&*registry_);
    EXPECT_TRUE(started.ok()) << started;
  }
  // Nothing more is saved.
  void End() {
    if (store_ != nullptr) store_->Stop();
    timers_.reset();
    pool_.reset();
    registry_.reset();
    store_.reset();
  }
  // As after kill -9: only what was synced is there. `between` may change the files.
  void Crash(const std::function<void()>& between = [] {}) {
    End();
    pool_.emplace(2);
    timers_.emplace();
    between();
    store_ = OpenStore();
    Begin();
  }

  static core::FactorSpec SpecAt(DurabilityLevel level, int towers = 1) {
    core::FactorSpec spec = Golden(towers);
    spec.durability = level;
    spec.zero_debias = false;
    return spec;
  }
  // The next steps of tower 0, each of which counts the golden batch once more, and nothing else.
  void Steps(const std::string& name, int64_t count) {
    const auto factor = *registry_->Find(name);
    const auto stream = OpenTower(*factor, 0);
    const int64_t next = factor->GetProgress(0, 1).next;
    for (int64_t step = next; step < next + count; ++step) {
      core::BatchHeader header = Header(*factor, step, 2);
      header.decay = 1;
      header.weight = 1;
      ASSERT_TRUE(Send(*factor, header, golden_batch_, stream.get()).ok());
      ASSERT_TRUE(ReadAfter(*factor, step).ok());
    }
    factor->Close(stream.get());
  }
  // What so many steps give.
  Floats After(int64_t steps) const {
    Floats sums = golden_covariance_;
    for (float& sum : sums) sum *= static_cast<float>(steps);
    return sums;
  }
  Floats Value(const std::string& name) { return Elements(Read(**registry_->Find(name))); }
  core::FactorInfo Describe(const std::string& name) {
    return (*registry_->Find(name))->Describe();
  }
  void Snapshot(const std::string& prefix = "") {
    const absl::Status status = store_->Snapshot(prefix, nullptr);
    ASSERT_TRUE(status.ok()) << status;
  }
  std::vector<std::filesystem::path> Files() {
    // Files go once the snapshot has been answered, and before another job.
    if (store_ != nullptr) Snapshot("no such factor");
    std::vector<std::filesystem::path> files;
    for (const auto& file : std::filesystem::directory_iterator(directory_ + "/generations")) {
      files.push_back(file.path());
    }
    return files;
  }
  static void FlipBit(const std::filesystem::path& path, int64_t offset) {
    std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(offset);
    const char byte = static_cast<char>(file.get() ^ 0x10);
    file.seekp(offset);
    file.put(byte);
  }
};

TEST_F(StoreTest, ANewFactorIsThereAfterACrash) {
  core::FactorSpec spec = SpecAt(DurabilityLevel::kUnset);
  spec.initial_covariance = core::InitialCovariance::kOnes;
  Create("f", spec);
  const uint64_t incarnation = Describe("f").version.incarnation;
  const uint64_t epoch = store_->epoch();
  Crash();
  EXPECT_EQ(store_->epoch(), epoch + 1);
  EXPECT_EQ(Describe("f").version.incarnation, incarnation);
  EXPECT_EQ(Describe("f").next, 1);
  EXPECT_EQ(Describe("f").spec.durability, DurabilityLevel::kSnapshot);
  EXPECT_EQ(Value("f"), Floats(6, 1));
  Create("g", SpecAt(DurabilityLevel::kUnset));
  EXPECT_GT(Describe("g").version.incarnation, incarnation);
}

TEST_F(StoreTest, ASnapshotCoversWhatCameBeforeIt) {
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  Create("deep/g", SpecAt(DurabilityLevel::kMemory));
  Steps("f", 3);
  Steps("deep/g", 2);
  EXPECT_EQ(Describe("f").durable, 0);
  Snapshot();
  EXPECT_EQ(Describe("f").durable, 3);
  EXPECT_EQ(Describe("deep/g").durable, 2);
  Steps("f", 2);
  EXPECT_EQ(Describe("f").next, 6);
  Crash();
  EXPECT_EQ(Describe("f").next, 4);
  EXPECT_EQ(Describe("f").durable, 3);
  EXPECT_EQ(Describe("f").total_weight, 3);
  EXPECT_EQ(Describe("f").steps_committed, 3);
  EXPECT_EQ(Value("f"), After(3));
  EXPECT_EQ(Value("deep/g"), After(2));
  Steps("f", 2);
  EXPECT_EQ(Value("f"), After(5));
}

TEST_F(StoreTest, OnlyWhatWasAskedForAndHasChangedIsSaved) {
  Create("a", SpecAt(DurabilityLevel::kSnapshot));
  Create("b", SpecAt(DurabilityLevel::kSnapshot));
  Steps("a", 1);
  Steps("b", 1);
  Snapshot("a");
  EXPECT_EQ(Describe("a").durable, 1);
  EXPECT_EQ(Describe("b").durable, 0);
  Snapshot();
  EXPECT_EQ(store_->Generations("a")->size(), 1);
  EXPECT_EQ(store_->Generations("b")->size(), 1);
}

TEST_F(StoreTest, WhoWantsItGetsASnapshotSoon) {
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  Steps("f", 2);
  store_->WantDurable("f");
  while (Describe("f").durable < 2) std::this_thread::yield();
}

TEST_F(StoreTest, ClosingSavesEverything) {
  Create("f", SpecAt(DurabilityLevel::kMemory));
  Steps("f", 4);
  store_->Close();
  Crash();
  EXPECT_EQ(Value("f"), After(4));
}

TEST_F(StoreTest, UnderSyncEveryStepSurvives) {
  Create("f", SpecAt(DurabilityLevel::kSync));
  Steps("f", 3);
  EXPECT_EQ(Describe("f").durable, 3);
  Crash();
  EXPECT_EQ(Value("f"), After(3));
  EXPECT_EQ(Describe("f").next, 4);
  EXPECT_EQ(Describe("f").total_weight, 3);
  Snapshot();
  Steps("f", 2);
  Crash();
  EXPECT_EQ(Value("f"), After(5));
  Steps("f", 1);
  EXPECT_EQ(Value("f"), After(6));
}

// What is smaller is logged: here the batches; then the state, which is taken from there.
TEST_F(StoreTest, UnderSyncStepsAreMadeAgainFromTheirBatches) {
  core::FactorSpec spec = Spec(40, 50, true, 2);
  spec.durability = DurabilityLevel::kSync;
  auto factor = Create("f", spec);
  std::vector<std::shared_ptr<core::CountingListener>> streams = {OpenTower(*factor, 0, 1),
                                                                  OpenTower(*factor, 1, 2)};
  const auto step = [&](int64_t number, int64_t rows) {
    for (int tower = 0; tower < 2; ++tower) {
      Floats batch(static_cast<size_t>(rows * 90));
      for (size_t i = 0; i < batch.size(); ++i) {
        batch[i] = 0.1f * static_cast<float>((i * 7 + number * 31 + tower) % 13) - 0.5f;
      }
      ASSERT_TRUE(
          Send(*factor, Header(*factor, number, rows, tower), batch, streams[tower].get()).ok());
    }
    ASSERT_TRUE(ReadAfter(*factor, number).ok());
  };
  for (int64_t number = 1; number <= 3; ++number) step(number, number);
  const Floats three = Elements(Read(*factor));
  const double weight = Describe("f").total_weight;
  factor = nullptr;  // goes before its registry
  Crash();
  EXPECT_EQ(Value("f"), three);
  EXPECT_EQ(Describe("f").total_weight, weight);
  EXPECT_EQ(Describe("f").next, 4);
  factor = *registry_->Find("f");
  streams = {OpenTower(*factor, 0, 1), OpenTower(*factor, 1, 2)};
  step(4, 2);
  step(5, 500);  // larger than the state
  step(6, 1);
  const Floats six = Elements(Read(*factor));
  factor = nullptr;
  Crash();
  EXPECT_EQ(Value("f"), six);
  Snapshot();
  Crash();
  EXPECT_EQ(Value("f"), six);
}

TEST_F(StoreTest, UnderSyncAStepThatFailedIsInTheLogToo) {
  Create("f", SpecAt(DurabilityLevel::kSync));
  Steps("f", 1);
  auto factor = *registry_->Find("f");
  const auto stream = OpenTower(*factor, 0);
  core::BatchHeader header = Header(*factor, 2, 2);
  header.decay = 1;
  header.weight = 3e38;
  ASSERT_TRUE(Send(*factor, header, golden_batch_, stream.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 2).ok());
  ASSERT_EQ(factor->Describe().steps_failed, 1);
  Steps("f", 1);
  factor = nullptr;  // goes before its registry
  Crash();
  EXPECT_EQ(Describe("f").next, 4);
  EXPECT_EQ(Describe("f").steps_failed, 1);
  EXPECT_EQ((*registry_->Find("f"))->OutcomeOf(0, 2), core::StepOutcome::kFailed);
  EXPECT_EQ(Value("f"), After(2));
}

TEST_F(StoreTest, AnOutcomeThatWasToldComesAgain) {
  core::FactorSpec spec = SpecAt(DurabilityLevel::kSnapshot, 2);
  spec.gather_policy = core::GatherPolicy::kPartial;
  spec.gather_timeout = absl::Milliseconds(1);
  auto factor = Create("f", spec);
  const auto stream = OpenTower(*factor, 0);
  const auto other = OpenTower(*factor, 1, 2);
  ASSERT_TRUE(Send(*factor, Header(*factor, 1, 2), golden_batch_, stream.get()).ok());
  ASSERT_TRUE(ReadAfter(*factor, 1).ok());
  ASSERT_EQ(factor->Describe().steps_partial, 1);
  factor = nullptr;  // goes before its registry
  Crash();
  const auto again = *registry_->Find("f");
  EXPECT_EQ(again->Describe().next, 1);
  const auto missed = again->GetProgress(1, 1).missed;
  ASSERT_EQ(missed.size(), 1);
  EXPECT_EQ(missed[0].first, 1);
  EXPECT_EQ(missed[0].outcome, core::StepOutcome::kPartial);
}

TEST_F(StoreTest, LivesTowersDampingsAndRegistrationsAreThereAfterACrash) {
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  Create("gone", SpecAt(DurabilityLevel::kSnapshot));
  Create("reset", SpecAt(DurabilityLevel::kSync));
  ASSERT_TRUE(registry_->SetDamping("d", 0.5).ok());
  ASSERT_TRUE(registry_->SetDamping("old", 0.5).ok());
  const core::OperatorSpec op{core::OperatorKind::kMatpower, -1, "d"};
  ASSERT_TRUE(registry_->Register("f", op, {}).ok());
  Steps("f", 1);
  const Floats result = Elements(Read(**registry_->Find("f"), {.op = op}));
  Steps("gone", 1);
  Steps("reset", 2);
  Snapshot();
  ASSERT_TRUE(registry_->SetTowers("f", 3, false).ok());
  ASSERT_TRUE(registry_->Delete("gone").ok());
  ASSERT_TRUE(registry_->Reset("reset").ok());
  ASSERT_TRUE(registry_->DeleteDamping("old").ok());
  const uint64_t incarnation = Describe("reset").version.incarnation;
  Crash();
  EXPECT_EQ((*registry_->Find("f"))->towers(), 3);
  EXPECT_EQ(registry_->Find("gone").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Describe("reset").version.incarnation, incarnation);
  EXPECT_EQ(Value("reset"), Floats(6, 0));
  EXPECT_EQ(*registry_->dampings().Get("d"), 0.5);
  EXPECT_FALSE(registry_->dampings().Get("old").ok());
  ASSERT_EQ(Describe("f").registrations.size(), 1);
  EXPECT_EQ(Describe("f").registrations[0].computed_from, Describe("f").version);
  EXPECT_EQ(Elements(Read(**registry_->Find("f"), {.op = op})), result);
}

TEST_F(StoreTest, TwoGenerationsAreKeptAndOtherFilesGo) {
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  for (int i = 0; i < 4; ++i) {
    Steps("f", 1);
    Snapshot();
  }
  const auto generations = *store_->Generations("f");
  ASSERT_EQ(generations.size(), 2);
  EXPECT_EQ(generations[1].number(), 4);
  EXPECT_EQ(generations[1].version().step(), 4);
  // Others go once the callers have been answered.
  while (Files().size() > 2) absl::SleepFor(absl::Milliseconds(1));
  EXPECT_EQ(Files().size(), 2);
  // What a crash leaves behind goes at the start.
  std::ofstream(directory_ + "/generations/99.safetensors") << "x";
  std::ofstream(directory_ + "/generations/100.safetensors.tmp") << "x";
  Crash();
  EXPECT_EQ(Files().size(), 2);
  EXPECT_EQ(Value("f"), After(4));
}

TEST_F(StoreTest, AnEarlierGenerationCanBeRestored) {
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  Steps("f", 2);
  Snapshot();
  Steps("f", 1);
  Snapshot();
  const uint64_t incarnation = Describe("f").version.incarnation;
  EXPECT_EQ(core::ReasonOf(store_->Restore("f", 7)), core::reason::kGenerationNotFound);
  ASSERT_TRUE(store_->Restore("f", 1).ok());
  EXPECT_EQ(Value("f"), After(2));
  EXPECT_EQ(Describe("f").next, 3);
  EXPECT_EQ(Describe("f").durable, 2);
  EXPECT_GT(Describe("f").version.incarnation, incarnation);
  Crash();
  EXPECT_EQ(Value("f"), After(2));
  Steps("f", 1);
  EXPECT_EQ(Value("f"), After(3));
}

TEST_F(StoreTest, ADamagedFileTakesItsFactorAlone) {
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  Create("g", SpecAt(DurabilityLevel::kSnapshot));
  Steps("f", 1);
  Snapshot();
  Steps("f", 1);
  Snapshot();
  Steps("g", 1);
  Snapshot();
  const auto newest = store_->Generations("f")->back();
  Crash([&] {
    FlipBit(directory_ + "/generations/" + std::to_string(newest.file()) + ".safetensors",
            static_cast<int64_t>(newest.covariance().offset()) + 5);
  });
  EXPECT_EQ(registry_->Find("f").status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(registry_->Create("f", SpecAt(DurabilityLevel::kSnapshot)).status().code(),
            absl::StatusCode::kDataLoss);
  EXPECT_EQ(Value("g"), After(1));
  EXPECT_EQ(store_->Restore("f", 2).code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(store_->Restore("f", 1).ok());
  EXPECT_EQ(Value("f"), After(1));
  Crash();
  EXPECT_EQ(Value("f"), After(1));
}

TEST_F(StoreTest, AFileThatIsGoneIsDamageToo) {
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  Steps("f", 1);
  Snapshot();
  Crash([&] { std::filesystem::remove(Files()[0]); });
  EXPECT_EQ(registry_->Find("f").status().code(), absl::StatusCode::kDataLoss);
  ASSERT_TRUE(registry_->Delete("f").ok());
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  Crash();
  EXPECT_EQ(Value("f"), Floats(6, 0));
}

TEST_F(StoreTest, AnExportIsImportedUnderAnyName) {
  Create("f", SpecAt(DurabilityLevel::kSnapshot));
  Steps("f", 3);
  const auto path = store_->Export("f");
  ASSERT_TRUE(path.ok()) << path.status();
  Steps("f", 1);
  EXPECT_EQ(*store_->Import(*path, "copy/f", false), "copy/f");
  EXPECT_EQ(Value("copy/f"), After(3));
  EXPECT_EQ(Describe("copy/f").next, 4);
  EXPECT_EQ(store_->Import(*path, "", false).status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(Value("f"), After(4));
  EXPECT_EQ(*store_->Import(*path, "", true), "f");
  EXPECT_EQ(Value("f"), After(3));
  FlipBit(*path, 4100);
  EXPECT_EQ(store_->Import(*path, "x", false).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_FALSE(registry_->Find("x").ok());
}

TEST_F(StoreTest, ABackupIsADataDirectory) {
  Create("f", SpecAt(DurabilityLevel::kSync));
  Steps("f", 2);
  const auto path = store_->Backup("monday");
  ASSERT_TRUE(path.ok()) << path.status();
  Steps("f", 1);
  EXPECT_EQ(store_->Backup("monday").status().code(), absl::StatusCode::kAlreadyExists);
  for (const char* bad : {"", ".", "..", "a/b"}) {
    EXPECT_EQ(store_->Backup(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  auto backup = Store::Open({.directory = *path, .disk_reserve = 1});
  ASSERT_TRUE(backup.ok()) << backup.status();
  core::FactorRegistry registry(OptionsOn(**backup));
  ASSERT_TRUE((*backup)->Start(&registry).ok());
  EXPECT_EQ(Elements(Read(**registry.Find("f"))), After(2));
  EXPECT_EQ(Value("f"), After(3));
}

// Every file of the manifest, damaged at places all over it: the store says so, or what it serves
// is right.
TEST_F(StoreTest, ADamagedManifestIsNoticedOrHarmless) {
  Create("f", SpecAt(DurabilityLevel::kSync));
  Steps("f", 2);
  Snapshot();
  Steps("f", 2);
  Crash();  // what was logged before becomes tables
  Steps("f", 2);
  End();
  const std::string copy = directory_ + ".copy";
  const auto value_in_copy = [&]() -> absl::StatusOr<Floats> {
    auto store = Store::Open({.directory = copy, .disk_reserve = 1});
    if (!store.ok()) return store.status();
    pool_.emplace(2);
    timers_.emplace();
    core::FactorRegistry registry(OptionsOn(**store));
    const absl::Status started = (*store)->Start(&registry);
    const auto factor = registry.Find("f");
    absl::StatusOr<Floats> value = absl::NotFoundError("");
    if (!started.ok()) {
      value = started;
    } else if (!factor.ok()) {
      value = factor.status();
    } else {
      value = Elements(Read(**factor));
    }
    (*store)->Stop();
    timers_.reset();
    pool_.reset();
    return value;
  };
  int noticed = 0;
  for (const auto& file : std::filesystem::directory_iterator(directory_ + "/manifest")) {
    const auto size = static_cast<int64_t>(file.file_size());
    const auto places = std::min<int64_t>(size, Repetitions(8, 500));
    for (int64_t i = 0; i < places; ++i) {
      std::filesystem::remove_all(copy);
      std::filesystem::copy(directory_, copy, std::filesystem::copy_options::recursive);
      const int64_t offset = size * i / places;
      FlipBit(std::filesystem::path(copy) / "manifest" / file.path().filename(), offset);
      const auto value = value_in_copy();
      noticed += !value.ok();
      if (value.ok()) {
        EXPECT_EQ(*value, After(6)) << file.path() << " at " << offset;
      }
    }
  }
  EXPECT_GT(noticed, 5);
}

TEST_F(StoreTest, ADirectoryHasOneServer) {
  const auto second = Store::Open({.directory = directory_, .disk_reserve = 1});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(StoreTest, AFullDiskRefusesWritesAndKeepsReads) {
  Create("f", SpecAt(DurabilityLevel::kSync));
  Steps("f", 1);
  Crash([&] { disk_reserve_ = int64_t{1} << 60; });
  EXPECT_EQ(core::ReasonOf(registry_->Create("g", Golden()).status()), core::reason::kDiskFull);
  const auto factor = *registry_->Find("f");
  const auto stream = OpenTower(*factor, 0);
  const absl::Status refused = Send(*factor, Header(*factor, 2, 2), golden_batch_, stream.get());
  EXPECT_EQ(core::ReasonOf(refused), core::reason::kDiskFull);
  EXPECT_TRUE(core::GetErrorDetails(refused)->retry_after.has_value());
  EXPECT_EQ(Value("f"), After(1));
  EXPECT_EQ(core::ReasonOf(store_->Snapshot("", nullptr)), "");  // nothing has changed
}

}  // namespace
}  // namespace fisherd::server
