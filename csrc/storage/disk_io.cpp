// The choice of the disk engine.
#include "storage/disk_io.h"

#include <stdexcept>
#include <system_error>

#include "storage/thread_io.h"
#include "storage/uring_io.h"

namespace flexkv {
namespace {

constexpr unsigned max_depth = 1024;
constexpr unsigned max_threads = 256;

void check(const DiskIoConfig& config) {
  if (config.depth < 1 || config.depth > max_depth) {
    throw std::invalid_argument("depth must be 1 to 1024, got " + std::to_string(config.depth));
  }
  if (config.num_threads < 1 || config.num_threads > max_threads) {
    throw std::invalid_argument("num_threads must be 1 to 256, got " + std::to_string(config.num_threads));
  }
}

}  // namespace

std::unique_ptr<DiskIo> make_disk_io(const std::string& name, const DiskIoConfig& config, std::string& why_not) {
  check(config);
  why_not.clear();
  if (name != "auto" && name != "io_uring" && name != "threads") {
    throw std::invalid_argument("the disk engine must be auto, io_uring or threads, got '" + name + "'");
  }
  if (name != "threads") {
    try {
      return std::make_unique<UringIo>(config, std::make_unique<UringSyscalls>());
    } catch (const std::system_error& error) {
      if (name == "io_uring") throw;
      why_not = error.what();
    }
  }
  return std::make_unique<ThreadIo>(config.depth, config.num_threads);
}

}  // namespace flexkv
