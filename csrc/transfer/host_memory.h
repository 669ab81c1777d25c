// What this machine and its control groups still let a process take, and which huge pages shared memory may use.
//
// All values are read from files below `root` ("/" in the product, a directory of small files in tests).
// Thread safety: pure functions over the file system.
#pragma once
#include <cstdint>
#include <string>

namespace flexkv {

struct MemoryHeadroom {
  std::uint64_t available_bytes = 0;
  std::string limited_by;  // the file that sets the limit and its figures, for a message
};

// The least of MemAvailable and what each control group (v1 or v2) on the way up to the root has left; file cache that
// can be reclaimed counts as left. An unreadable file sets no limit.
[[nodiscard]] MemoryHeadroom memory_headroom(const std::string& root = "/");

// Free and unreserved 2 MiB huge pages, in bytes.
[[nodiscard]] std::uint64_t free_hugetlb_bytes(const std::string& root = "/");

// True where madvise(MADV_HUGEPAGE) has an effect on a memfd.
[[nodiscard]] bool shmem_huge_pages_enabled(const std::string& root = "/");

[[nodiscard]] std::string format_gib(std::uint64_t bytes);  // "3.25 GiB"

}  // namespace flexkv
