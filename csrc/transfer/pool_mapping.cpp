#include "transfer/pool_mapping.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <limits>
#include <stdexcept>
#include <string>

#include "transfer/os_error.h"

namespace flexkv {
namespace {

// Size of the segment, at least `bytes` and fixed for ever.
std::size_t checked_size(int memfd, std::uint64_t bytes) {
  struct stat info = {};
  if (::fstat(memfd, &info) != 0) throw_errno(errno, "fstat of the pool segment");
  const auto size = static_cast<std::uint64_t>(info.st_size);
  if (size < bytes) {
    throw std::invalid_argument("pool segment has " + std::to_string(size) + " bytes, its slots need " +
                                std::to_string(bytes));
  }
  const int seals = ::fcntl(memfd, F_GET_SEALS);
  if (seals < 0 || (seals & F_SEAL_SHRINK) == 0) {
    throw std::invalid_argument("pool segment is not sealed against shrinking");
  }
  return static_cast<std::size_t>(size);
}

std::uint64_t pool_bytes(const protocol::PoolBody& pool, std::uint64_t slot_bytes) {
  if (pool.num_slots == 0 || pool.num_slots > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
    throw std::invalid_argument("pool of " + std::to_string(pool.num_slots) + " slots");
  }
  if (pool.stride_bytes < slot_bytes) {
    throw std::invalid_argument("pool stride of " + std::to_string(pool.stride_bytes) +
                                " bytes is shorter than this rank's slots of " + std::to_string(slot_bytes));
  }
  std::uint64_t bytes = 0;
  if (__builtin_mul_overflow(pool.num_slots, pool.stride_bytes, &bytes)) {
    throw std::invalid_argument("pool size wraps around 2^64");
  }
  return bytes;
}

}  // namespace

PoolMapping::PoolMapping(const protocol::PoolBody& pool, int memfd, std::uint64_t slot_bytes,
                         bool engine_is_this_process) {
  const std::size_t segment_bytes = checked_size(memfd, pool_bytes(pool, slot_bytes));
  shard_.stride_bytes = pool.stride_bytes;
  shard_.num_slots = static_cast<std::int64_t>(pool.num_slots);
  if (engine_is_this_process && pool.base_address != 0) {
    shard_.base = reinterpret_cast<std::byte*>(pool.base_address);
    return;
  }
  void* address = ::mmap(nullptr, segment_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
  if (address == MAP_FAILED) {
    throw_errno(errno, "cannot map the host pool of " + std::to_string(segment_bytes) + " bytes");
  }
  mapped_ = address;
  mapped_bytes_ = segment_bytes;
  shard_.base = static_cast<std::byte*>(address);
  // A child of the engine's has no use for it. Without the advice it would only be inherited: not worth failing.
  (void)::madvise(mapped_, mapped_bytes_, MADV_DONTFORK);
  (void)::madvise(mapped_, mapped_bytes_, MADV_HUGEPAGE);
}

PoolMapping::~PoolMapping() {
  if (mapped_ != nullptr) ::munmap(mapped_, mapped_bytes_);
}

}  // namespace flexkv
