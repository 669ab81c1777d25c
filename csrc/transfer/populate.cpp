#include "transfer/populate.h"

#include <sys/mman.h>

#include <atomic>
#include <cerrno>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23  // Linux 5.14
#endif

namespace flexkv {
namespace {

constexpr std::uint64_t page_bytes = 4096;

}  // namespace

int try_populate(std::byte* begin, std::uint64_t bytes) {
  const std::uint64_t skew = reinterpret_cast<std::uintptr_t>(begin) % page_bytes;
  int result = 0;
  do {
    result = ::madvise(begin - skew, bytes + skew, MADV_POPULATE_WRITE);
  } while (result != 0 && errno == EINTR);
  return result == 0 ? 0 : errno;
}

int populate(std::byte* begin, std::uint64_t bytes) {
  const int error = try_populate(begin, bytes);
  const bool is_known = ::madvise(nullptr, 0, MADV_POPULATE_WRITE) == 0;
  if (is_known || error != EINVAL) return error;
  for (std::uint64_t offset = 0; offset < bytes; offset += page_bytes) {
    std::atomic_ref(reinterpret_cast<unsigned char&>(begin[offset])).fetch_or(0, std::memory_order_relaxed);
  }
  return 0;
}

}  // namespace flexkv
