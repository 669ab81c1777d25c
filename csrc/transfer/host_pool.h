// HostPool: the host tier's bytes. One sealed memfd segment per shard (of a rank, or of ranks that hold the same
// bytes); slot s of shard r is the extent [base(r) + s * stride(r), + slot_bytes(r)), stride padded to 4 KiB (D2).
//
// Segments are created at once, prefaulted in slot order by several threads while the engine already serves; slots
// below `slots_prefaulted()` may be handed out. Huge pages: hugetlb when the kernel has enough free, else transparent
// huge pages by madvise, else 4 KiB; `page_kind()` says which. Mappings are MADV_DONTFORK, descriptors CLOEXEC; memfds
// are sealed against resizing. The destructor stops the prefault threads first, then unmaps. A forked child may only
// destroy its copy of the object, which does nothing. Thread safety: const members any thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace flexkv {

struct HostPoolConfig {
  std::int64_t num_slots = 0;
  std::vector<std::uint64_t> slot_bytes;  // per shard
  int prefault_threads = 2;
  bool use_hugetlb = true;  // try; falls back
};

[[nodiscard]] std::uint64_t slot_stride_bytes(std::uint64_t slot_bytes);  // padded to 4 KiB

class HostPool {
 public:
  // Throws std::invalid_argument on a bad config, std::system_error (with what to set in its message) when memory
  // cannot be had: the size is checked against the cgroup limit and MemAvailable before anything is touched.
  explicit HostPool(const HostPoolConfig& config);
  ~HostPool();
  HostPool(const HostPool&) = delete;
  HostPool& operator=(const HostPool&) = delete;

  [[nodiscard]] int num_shards() const;
  [[nodiscard]] std::int64_t num_slots() const;
  [[nodiscard]] std::uint64_t slot_bytes(int shard) const;
  [[nodiscard]] std::uint64_t stride_bytes(int shard) const;
  [[nodiscard]] std::byte* base(int shard) const;
  [[nodiscard]] int fd(int shard) const;           // owned by the pool; pass by SCM_RIGHTS
  [[nodiscard]] std::uint64_t generation() const;  // random, new for every pool
  [[nodiscard]] std::int64_t slots_prefaulted() const;
  // True once `slots` slots are prefaulted; false after timeout_s.
  [[nodiscard]] bool wait_prefaulted(std::int64_t slots, double timeout_s) const;
  [[nodiscard]] int prefault_error() const;     // errno that ended prefaulting early, 0: none
  [[nodiscard]] std::string page_kind() const;  // "hugetlb", "thp" or "4k"

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace flexkv
