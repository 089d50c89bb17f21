#include "core/cuda/card.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "core/cuda/read.h"

namespace fisherd::cuda {

std::unique_ptr<Card> Card::Open(int index, std::string& why_not) {
  cudaDeviceProp properties;
  cudaError_t error = cudaGetDeviceProperties(&properties, index);
  if (error == cudaSuccess) {
    std::unique_ptr<Card> card(new Card(index, properties.name));
    error = card->Prepare();
    if (error == cudaSuccess) return card;
  }
  cudaGetLastError();
  why_not = cudaGetErrorString(error);
  return nullptr;
}

cudaError_t Card::Prepare() {
  // A thread that waits sleeps: the host has other work for its processors.
  if (auto e = cudaSetDevice(index_); e != cudaSuccess) return e;
  if (cudaSetDeviceFlags(cudaDeviceScheduleBlockingSync) != cudaSuccess) cudaGetLastError();
  if (auto e = cudaStreamCreateWithFlags(&memory_stream_, cudaStreamNonBlocking); e != cudaSuccess)
    return e;
  // What has been given back stays with us: the driver takes long to give it again.
  cudaMemPool_t pool = nullptr;
  if (auto e = cudaDeviceGetDefaultMemPool(&pool, index_); e != cudaSuccess) return e;
  uint64_t keep = UINT64_MAX;
  if (auto e = cudaMemPoolSetAttribute(pool, cudaMemPoolAttrReleaseThreshold, &keep);
      e != cudaSuccess)
    return e;
  for (int k = 0; k < kStepLanes + kReadLanes; ++k) {
    if (auto e = AddLane(k < kStepLanes ? steps_ : reads_); e != cudaSuccess) return e;
  }
  // The build may have no code for this card.
  Lane& lane = *reads_.all.front();
  if (auto e = Fill<float>(0, 1, reinterpret_cast<float*>(lane.words), lane.stream);
      e != cudaSuccess)
    return e;
  return cudaStreamSynchronize(lane.stream);
}

cudaError_t Card::AddLane(LanePool& pool) {
  pool.all.push_back(std::make_unique<Lane>());
  Lane& lane = *pool.all.back();
  pool.free.push_back(&lane);
  if (auto e = cudaStreamCreateWithFlags(&lane.stream, cudaStreamNonBlocking); e != cudaSuccess)
    return e;
  for (cudaEvent_t* event : {&lane.began, &lane.copied, &lane.ended}) {
    if (auto e = cudaEventCreateWithFlags(event, cudaEventBlockingSync); e != cudaSuccess) return e;
  }
  void* memory = nullptr;
  if (auto e = cudaMalloc(&memory, 2 * kChunkBytes); e != cudaSuccess) return e;
  lane.chunk = static_cast<std::byte*>(memory);
  if (auto e = cudaMalloc(&memory, kWordsBytes); e != cudaSuccess) return e;
  lane.words = static_cast<std::byte*>(memory);
  if (auto e = cudaHostAlloc(&memory, 2 * kChunkBytes, cudaHostAllocDefault); e != cudaSuccess)
    return e;
  lane.pinned = static_cast<std::byte*>(memory);
  if (auto e = cudaHostAlloc(&memory, kWordsBytes, cudaHostAllocDefault); e != cudaSuccess)
    return e;
  lane.answer = static_cast<std::byte*>(memory);
  return cudaSuccess;
}

Card::~Card() {
  cudaSetDevice(index_);
  for (LanePool* pool : {&steps_, &reads_}) {
    for (const auto& lane : pool->all) {
      Free(lane->scratch);
      for (const cudaEvent_t event : {lane->began, lane->copied, lane->ended}) {
        if (event != nullptr) cudaEventDestroy(event);
      }
      cudaFree(lane->chunk);
      cudaFree(lane->words);
      cudaFreeHost(lane->pinned);
      cudaFreeHost(lane->answer);
      if (lane->stream != nullptr) cudaStreamDestroy(lane->stream);
    }
  }
  if (memory_stream_ != nullptr) cudaStreamDestroy(memory_stream_);
}

Card::Memory Card::memory() const {
  size_t free = 0, all = 0;
  if (cudaSetDevice(index_) != cudaSuccess || cudaMemGetInfo(&free, &all) != cudaSuccess) return {};
  return {static_cast<int64_t>(all), static_cast<int64_t>(free)};
}

void* Card::Allocate(int64_t bytes) {
  void* memory = nullptr;
  if (lost_ || !Good(cudaSetDevice(index_)) ||
      !Good(cudaMallocAsync(&memory, static_cast<size_t>(bytes), memory_stream_)) ||
      !Good(cudaStreamSynchronize(memory_stream_))) {
    return nullptr;
  }
  return memory;
}

// Whoever used it has waited for the end of that.
void Card::Free(void* memory) {
  if (memory == nullptr) return;
  cudaSetDevice(index_);
  Good(cudaFreeAsync(memory, memory_stream_));
}

bool Card::Good(cudaError_t error) {
  if (error == cudaSuccess) return true;
  cudaGetLastError();  // else the thread's next call would tell of it
  if (error == cudaErrorMemoryAllocation) return false;
  Lose(cudaGetErrorString(error));
  return false;
}

void Card::Lose(const std::string& why) {
  std::lock_guard lock(mutex_);
  if (!lost_) why_lost_ = why;
  lost_ = true;
}

std::string Card::why_lost() const {
  std::lock_guard lock(mutex_);
  return why_lost_;
}

Card::Hold Card::Take(LanePool& pool) {
  cudaSetDevice(index_);
  std::unique_lock lock(mutex_);
  freed_.wait(lock, [&pool] { return !pool.free.empty(); });
  Lane* const lane = pool.free.back();
  pool.free.pop_back();
  return {this, lane, &pool};
}

void Card::Give(LanePool& pool, Lane* lane) {
  std::lock_guard lock(mutex_);
  pool.free.push_back(lane);
  freed_.notify_all();  // of both pools
}

Card::Hold::~Hold() {
  if (lane_ != nullptr) card_->Give(*pool_, lane_);
}

void* Card::Hold::Scratch(int64_t bytes) {
  if (bytes <= lane_->scratch_bytes) return lane_->scratch;
  card_->Free(std::exchange(lane_->scratch, nullptr));
  lane_->scratch_bytes = 0;
  lane_->scratch = card_->Allocate(bytes);
  if (lane_->scratch != nullptr) lane_->scratch_bytes = bytes;
  return lane_->scratch;
}

void Card::Hold::Begin() {
  good_ = true;
  Note(cudaEventRecord(lane_->began, lane_->stream));
}

void Card::Hold::Copied() { Note(cudaEventRecord(lane_->copied, lane_->stream)); }

bool Card::Hold::Finish() {
  Note(cudaEventRecord(lane_->ended, lane_->stream));
  Note(cudaEventSynchronize(lane_->ended));
  if (!good_ || card_->lost()) return false;
  card_->CountTimes(*lane_);
  return true;
}

void Card::CountTimes(const Lane& lane) {
  float copy = 0, kernels = 0;  // milliseconds
  if (!Good(cudaEventElapsedTime(&copy, lane.began, lane.copied)) ||
      !Good(cudaEventElapsedTime(&kernels, lane.copied, lane.ended))) {
    return;
  }
  std::lock_guard lock(mutex_);
  counts_.copy_seconds += copy * 1e-3;
  counts_.kernel_seconds += kernels * 1e-3;
}

Card::Counts Card::counts() const {
  std::lock_guard lock(mutex_);
  return counts_;
}

void Card::CountBytes(int64_t to_card, int64_t from_card) {
  std::lock_guard lock(mutex_);
  counts_.bytes_to_card += to_card;
  counts_.bytes_from_card += from_card;
}

// Two halves: one is copied by the host while the other is on its way.
bool Card::Download(const void* device, int64_t bytes, void* host) {
  Hold lane = ForRead();
  lane.Begin();
  int64_t done = 0;        // copied by the host
  int64_t on_its_way = 0;  // of the half before
  for (int64_t next = 0; done < bytes;) {
    const int64_t size = std::min(bytes - next, kChunkBytes);
    // What is waited for is all that was asked for before.
    if (on_its_way > 0 && !Good(cudaEventSynchronize(lane->ended))) return false;
    if (size > 0) {
      lane.Note(cudaMemcpyAsync(lane->pinned + next / kChunkBytes % 2 * kChunkBytes,
                                static_cast<const std::byte*>(device) + next,
                                static_cast<size_t>(size), cudaMemcpyDeviceToHost, lane->stream));
      lane.Note(cudaEventRecord(lane->ended, lane->stream));
    }
    if (on_its_way > 0) {
      std::memcpy(static_cast<std::byte*>(host) + done,
                  lane->pinned + done / kChunkBytes % 2 * kChunkBytes,
                  static_cast<size_t>(on_its_way));
      done += on_its_way;
    }
    on_its_way = size;
    next += size;
  }
  lane.Copied();
  CountBytes(0, bytes);
  return lane.Finish();
}

bool Card::Upload(const void* host, int64_t bytes, void* device) {
  Hold lane = ForRead();
  lane.Begin();
  for (int64_t done = 0; done < bytes; done += kChunkBytes) {
    const int64_t size = std::min(bytes - done, kChunkBytes);
    std::byte* const half = lane->pinned + done / kChunkBytes % 2 * kChunkBytes;
    // The other half may still be on its way; this one was two copies ago.
    cudaEvent_t& left = done / kChunkBytes % 2 == 0 ? lane->copied : lane->ended;
    if (done >= 2 * kChunkBytes && !Good(cudaEventSynchronize(left))) return false;
    std::memcpy(half, static_cast<const std::byte*>(host) + done, static_cast<size_t>(size));
    lane.Note(cudaMemcpyAsync(static_cast<std::byte*>(device) + done, half,
                              static_cast<size_t>(size), cudaMemcpyHostToDevice, lane->stream));
    lane.Note(cudaEventRecord(left, lane->stream));
  }
  lane.Copied();
  CountBytes(bytes, 0);
  return lane.Finish();
}

}  // namespace fisherd::cuda
