// One GPU: its memory, the streams that work goes through, and what becomes of it when it fails.

#ifndef FISHERD_CORE_CUDA_CARD_H_
#define FISHERD_CORE_CUDA_CARD_H_

#include <cuda_runtime.h>

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

namespace fisherd::cuda {

// Thread-safe. Outlives the memory and the lanes that it has given.
class Card {
 public:
  // Bytes that go to or from host memory at once, where that is not pinned.
  static constexpr int64_t kChunkBytes = 4 << 20;

  // Null, and why, if the card cannot be used.
  static std::unique_ptr<Card> Open(int index, std::string& why_not);
  ~Card();
  Card(const Card&) = delete;
  Card& operator=(const Card&) = delete;

  int index() const { return index_; }
  const std::string& name() const { return name_; }  // "NVIDIA H100 80GB HBM3"

  struct Memory {
    int64_t bytes = 0;
    int64_t free = 0;
  };
  Memory memory() const;

  // Memory of the card, not initialised; null if there is none.
  void* Allocate(int64_t bytes);
  void Free(void* memory);

  // True if nothing went wrong. Anything but a lack of memory ends the card's use.
  bool Good(cudaError_t error);
  void Lose(const std::string& why);
  bool lost() const { return lost_; }
  std::string why_lost() const;

  // What one caller at a time works with.
  struct Lane {
    cudaStream_t stream = nullptr;
    cudaEvent_t began = nullptr, copied = nullptr, ended = nullptr;
    std::byte* chunk = nullptr;   // of the card, twice kChunkBytes
    std::byte* pinned = nullptr;  // of the host, twice kChunkBytes
    std::byte* words = nullptr;   // of the card, kWordsBytes, for what kernels answer
    std::byte* answer = nullptr;  // of the host, pinned, as many
    void* scratch = nullptr;      // of the card
    int64_t scratch_bytes = 0;
  };
  static constexpr int64_t kWordsBytes = 64 << 10;

  struct LanePool {
    std::vector<std::unique_ptr<Lane>> all;
    std::vector<Lane*> free;  // guarded by the card's lock
  };

  // A lane for as long as this lives, with the card as the thread's own.
  class Hold {
   public:
    Hold(Hold&& other) noexcept : card_(other.card_), lane_(other.lane_), pool_(other.pool_) {
      other.lane_ = nullptr;
    }
    ~Hold();
    Lane* operator->() const { return lane_; }

    // Memory of the card for this use, with what was there; null if there is none.
    void* Scratch(int64_t bytes);

    // The work is Begin, copies to the card, Copied, kernels, Finish, in that order, and Note of
    // what each call to the driver said. Finish waits for all of it: true if all was good.
    void Begin();
    void Note(cudaError_t error) { good_ &= card_->Good(error); }
    void Copied();
    bool Finish();

   private:
    friend class Card;
    Hold(Card* card, Lane* lane, LanePool* pool) : card_(card), lane_(lane), pool_(pool) {}
    Card* card_;
    Lane* lane_;
    LanePool* pool_;
    bool good_ = true;  // so far
  };
  // Waits for one: of the few for steps, which have scratch, or of those for reads.
  Hold ForStep() { return Take(steps_); }
  Hold ForRead() { return Take(reads_); }

  // Through pieces of kChunkBytes; `host` is any host memory.
  bool Download(const void* device, int64_t bytes, void* host);
  bool Upload(const void* host, int64_t bytes, void* device);

  struct Counts {
    double kernel_seconds = 0;
    double copy_seconds = 0;
    int64_t bytes_to_card = 0;
    int64_t bytes_from_card = 0;
  };
  Counts counts() const;
  void CountBytes(int64_t to_card, int64_t from_card);

 private:
  static constexpr int kStepLanes = 2;  // one copies while the other computes
  static constexpr int kReadLanes = 4;
  Card(int index, std::string name) : index_(index), name_(std::move(name)) {}
  cudaError_t Prepare();
  cudaError_t AddLane(LanePool& pool);
  Hold Take(LanePool& pool);
  void Give(LanePool& pool, Lane* lane);
  void CountTimes(const Lane& lane);

  const int index_;
  const std::string name_;
  cudaStream_t memory_stream_ = nullptr;
  std::atomic<bool> lost_ = false;

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable freed_;
  std::string why_lost_;
  LanePool steps_;
  LanePool reads_;
  Counts counts_;
};

}  // namespace fisherd::cuda

#endif  // FISHERD_CORE_CUDA_CARD_H_
