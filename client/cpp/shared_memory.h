// Memory that this process shares with a server on the same machine, in blocks: one for the
// elements of each batch.

#ifndef FISHERD_CLIENT_SHARED_MEMORY_H_
#define FISHERD_CLIENT_SHARED_MEMORY_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/mutex.h"

namespace fisherd {

class SharedBlock;

// One region, which the server maps whole and reads in place. Thread-safe. Held by shared_ptr: its
// blocks keep it alive.
//
// What the server may still read must not be written. It is done with the bytes of a step once the
// step has ended: from then on it discards whatever comes for it. And with all that was sent on a
// stream, once a newer stream of this client has been answered: it closes the old one before. So a
// block that its batch has left is used again only after one or the other, for whatever reason the
// batch went.
class SharedMemory : public std::enable_shared_from_this<SharedMemory> {
 public:
  using Tower = std::pair<std::string, int>;  // factor, tower
  // Whose elements a block holds.
  struct Use {
    Tower tower;
    uint64_t incarnation = 0;
    int64_t step = 0;
  };

  // RESOURCE_EXHAUSTED or UNAVAILABLE, if the system does not have it. It takes memory page by
  // page, as pages are first written, and keeps it.
  static absl::StatusOr<std::shared_ptr<SharedMemory>> Create(int64_t bytes);
  ~SharedMemory();
  SharedMemory(const SharedMemory&) = delete;
  SharedMemory& operator=(const SharedMemory&) = delete;

  // What to hand to the server: it can map it to read, not to write where the system has a seal
  // for that, and nobody can change its size.
  int fd() const { return fd_; }
  int64_t size() const { return size_; }

  // A block of `bytes` (≥ 1) for this step's batch; null if there is no room.
  std::unique_ptr<SharedBlock> Take(int64_t bytes, Use use) ABSL_LOCKS_EXCLUDED(mutex_);

  // The server's word: of this tower, the steps below `next` have ended, and all other
  // incarnations.
  void OnEnded(const Tower& tower, uint64_t incarnation, int64_t next) ABSL_LOCKS_EXCLUDED(mutex_);
  // A stream has had its first answer; nothing has been sent on it yet.
  void OnNewStream() ABSL_LOCKS_EXCLUDED(mutex_);

  // Bytes that cannot be taken now.
  int64_t bytes_in_use() const ABSL_LOCKS_EXCLUDED(mutex_);

 private:
  friend class SharedBlock;
  struct Left {
    Use use;
    int64_t offset = 0;
    int64_t size = 0;
  };
  struct Ended {
    uint64_t incarnation = 0;
    int64_t next = 0;
  };

  SharedMemory(int fd, std::byte* memory, int64_t size);
  void Leave(Left left) ABSL_LOCKS_EXCLUDED(mutex_);
  bool HasEnded(const Use& use) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Free(int64_t offset, int64_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  // Those whose steps have ended, or all.
  void FreeLeft(bool all) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const int fd_;
  std::byte* const memory_;
  const int64_t size_;
  mutable Mutex mutex_;
  std::map<int64_t, int64_t> free_ ABSL_GUARDED_BY(mutex_);  // offset, size; none touches the next
  int64_t free_bytes_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<Left> left_ ABSL_GUARDED_BY(mutex_);  // by their batches; perhaps not by the server
  std::map<Tower, Ended> ended_ ABSL_GUARDED_BY(mutex_);
};

// Belongs to one batch; goes with it.
class SharedBlock {
 public:
  ~SharedBlock() { memory_->Leave({std::move(use_), offset_, size_}); }
  SharedBlock(const SharedBlock&) = delete;
  SharedBlock& operator=(const SharedBlock&) = delete;

  std::byte* data() const { return memory_->memory_ + offset_; }
  // From the region's first byte.
  int64_t offset() const { return offset_; }

 private:
  friend class SharedMemory;
  SharedBlock(std::shared_ptr<SharedMemory> memory, SharedMemory::Use use, int64_t offset,
              int64_t size)
      : memory_(std::move(memory)), use_(std::move(use)), offset_(offset), size_(size) {}

  const std::shared_ptr<SharedMemory> memory_;
  SharedMemory::Use use_;
  const int64_t offset_;
  const int64_t size_;
};

}  // namespace fisherd

#endif  // FISHERD_CLIENT_SHARED_MEMORY_H_
