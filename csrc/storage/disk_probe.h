// What a disk engine alone does: it moves blocks between a pool's slots and a file and nothing else, no records and no
// checksums. The limit beside which benchmarks show the SSD store, on the same memory and the same file.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "transfer/host_pool.h"

namespace flexkv {

struct DiskProbe {
  std::string path;  // of a file that has room for all of the pool's slots; opened as the store's data file is
  std::string io_engine = "auto";
  unsigned depth = 16;
  bool is_write = false;
};

// Moves pool slot i to or from the i-th of `places`, in units of a slot's stride, each once; returns the seconds it
// took once everything was set up. What is written over is gone. REQUIRES: a pool of one shard, prefaulted; as many
// places as it has slots. Throws std::system_error for what the disk says, std::invalid_argument.
[[nodiscard]] double time_disk(const DiskProbe& probe, const HostPool& pool, std::span<const std::int64_t> places);

}  // namespace flexkv
