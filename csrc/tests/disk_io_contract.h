// The contract of disk engines as tests: every DiskIo passes `check_disk_io_contract`, also on faults that it has to
// get over.
#pragma once
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "storage/disk_io.h"
#include "tests/check.h"
#include "tests/unwatched.h"

namespace flexkv {

// What is tested: an engine, and the kind of file it works on.
struct DiskIoCase {
  std::string name;
  std::function<std::unique_ptr<DiskIo>(const DiskIoConfig&)> make;
  std::function<std::unique_ptr<File>(const std::string& name)> open;  // a new file each time
};

namespace disk_io_contract {

constexpr std::size_t page = 4096;
constexpr double patience_s = 60;
constexpr std::byte poison{0xa5};

// Memory that starts on a page.
class Pages {
 public:
  explicit Pages(std::size_t bytes)
      : bytes_(bytes), at_(static_cast<std::byte*>(std::aligned_alloc(page, bytes)), &std::free) {
    CHECK(at_ != nullptr);
    fill(poison);
  }
  void fill(std::byte value) { std::memset(at_.get(), static_cast<int>(value), bytes_); }
  void randomize(std::mt19937_64& random) {
    const Unwatched unwatched;
    for (std::size_t i = 0; i < bytes_; i += sizeof(std::uint64_t)) {
      const std::uint64_t word = random();
      std::memcpy(at_.get() + i, &word, sizeof(word));
    }
  }
  [[nodiscard]] std::byte* at(std::size_t offset) const { return at_.get() + offset; }
  [[nodiscard]] std::size_t bytes() const { return bytes_; }
  [[nodiscard]] iovec all() const { return {at_.get(), bytes_}; }
  friend bool operator==(const Pages& a, const Pages& b) {
    return a.bytes_ == b.bytes_ && std::memcmp(a.at(0), b.at(0), a.bytes_) == 0;
  }

 private:
  std::size_t bytes_;
  std::unique_ptr<std::byte, decltype(&std::free)> at_;
};

// One result, whatever it takes.
DiskResult one_result(DiskIo& io);
// The error of a request.
int run_one(DiskIo& io, File& file, bool is_write, std::uint64_t offset, std::vector<iovec> buffers);

}  // namespace disk_io_contract

void check_disk_io_contract(const DiskIoCase& under_test);

}  // namespace flexkv
