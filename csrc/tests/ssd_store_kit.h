// What the tests of the SsdStore share: a store over temporary directories, a small pool, blocks whose bytes follow
// from a number, and the acknowledgements as they come.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "storage/ssd_store.h"
#include "tests/temp_dir.h"

namespace flexkv {

using Ids = std::vector<std::int64_t>;

inline BlockKey key_of(std::uint64_t number) { return {number * 0x9e3779b97f4a7c15u + 1, ~number}; }

// `number` of block i is first + i; its parent is the block before it.
inline ChainSpec chain_of(std::uint64_t first, std::size_t num_blocks, bool with_parents) {
  ChainSpec chain;
  for (std::uint64_t i = 0; i < num_blocks; ++i) {
    chain.keys.push_back(key_of(first + i));
    if (with_parents) chain.parents.push_back(first + i == 0 ? BlockKey{} : key_of(first + i - 1));
  }
  return chain;
}

class Acks {
 public:
  void take(DiskAck ack);
  DiskAck wait(std::int64_t op_id);
  [[nodiscard]] bool has(std::int64_t op_id) const;

 private:
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::int64_t, DiskAck> acks_;
};

struct StoreShape {
  std::size_t num_directories = 1;
  std::vector<std::uint64_t> extents = {4096};
  std::uint64_t slots_per_directory = 16;
  std::string io_engine = "auto";
  unsigned read_depth = 4;
  unsigned write_depth = 2;
};

class StoreKit {
 public:
  static constexpr std::int64_t pool_slots = 16;

  explicit StoreKit(StoreShape shape = {}, FileSystem& files = posix_file_system())
      : shape_(std::move(shape)), files_(&files) {}

  [[nodiscard]] SsdStoreConfig config() const;
  [[nodiscard]] std::string file(const std::string& name, std::size_t directory = 0) const {
    return dir_.file("ssd" + std::to_string(directory)) + "/flexkv-ssd-v1/" + fingerprint + "/" + name;
  }

  // The pool is made by the first call, with threads of its own.
  SsdScan open();
  SsdScan reopen();
  void close();
  // Leaves no thread behind: from here a process may fork, and its child open.
  void close_with_pool();
  void use(FileSystem& files) { files_ = &files; }  // from the next open on
  SsdStore& store() { return *store_; }
  Acks& acks() { return *acks_; }

  void fill(std::int64_t host_slot, std::uint64_t number);
  [[nodiscard]] bool holds(std::int64_t host_slot, std::uint64_t number) const;
  void wipe(std::int64_t host_slot) { fill(host_slot, 0xdeadbeef); }

  // Submits blocks first, first+1, ... from host slots 0, 1, ... to these slots; returns the op's id.
  std::int64_t begin_write(const Ids& slots, std::uint64_t first);
  // The same way back, to host slots 8, 9, ...
  std::int64_t begin_read(const Ids& slots, std::uint64_t first);
  DiskAck write(const Ids& slots, std::uint64_t first) { return acks_->wait(begin_write(slots, first)); }
  // What is not named as failed holds the right bytes, whatever happened.
  DiskAck read(const Ids& slots, std::uint64_t first);

 private:
  static constexpr const char* fingerprint = "0123456789abcdef";

  [[nodiscard]] std::byte* at(std::int64_t host_slot, std::size_t shard) const;

  StoreShape shape_;
  FileSystem* files_;
  TempDir dir_;
  std::shared_ptr<HostPool> pool_;
  std::shared_ptr<Acks> acks_;
  std::unique_ptr<SsdStore> store_;
  std::int64_t next_id_ = 1;
};

}  // namespace flexkv
