// What the tests of the SsdStore share: a store over temporary directories, a small pool, blocks whose bytes follow
// from a number, and the acknowledgements as they come.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "storage/ssd_store.h"
#include "tests/check.h"
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
  void take(DiskAck ack) {
    const std::lock_guard lock(mutex_);
    const std::int64_t op_id = ack.op_id;
    CHECK(acks_.emplace(op_id, std::move(ack)).second);
    changed_.notify_all();
  }
  DiskAck wait(std::int64_t op_id) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return acks_.contains(op_id); }));
    DiskAck ack = std::move(acks_.at(op_id));
    acks_.erase(op_id);
    return ack;
  }
  [[nodiscard]] bool has(std::int64_t op_id) const {
    const std::lock_guard lock(mutex_);
    return acks_.contains(op_id);
  }

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

  [[nodiscard]] SsdStoreConfig config() const {
    SsdStoreConfig config;
    std::uint64_t slot_bytes = 0;
    for (const std::uint64_t extent : shape_.extents) slot_bytes += extent;
    for (std::size_t i = 0; i < shape_.num_directories; ++i) {
      config.directories.push_back(dir_.file("ssd" + std::to_string(i)));
    }
    config.fingerprint = fingerprint;
    config.model = "a model";
    config.extent_bytes = shape_.extents;
    const std::uint64_t record_pages = (4096 + shape_.slots_per_directory * 64 + 4095) / 4096;
    config.capacity_bytes = shape_.num_directories * (record_pages * 4096 + shape_.slots_per_directory * slot_bytes);
    config.io_engine = shape_.io_engine;
    config.read_depth = shape_.read_depth;
    config.write_depth = shape_.write_depth;
    return config;
  }
  [[nodiscard]] std::string file(const std::string& name, std::size_t directory = 0) const {
    return dir_.file("ssd" + std::to_string(directory)) + "/flexkv-ssd-v1/" + fingerprint + "/" + name;
  }

  // The pool is made by the first call, with threads of its own.
  SsdScan open() {
    if (pool_ == nullptr) pool_ = std::make_shared<HostPool>(HostPoolConfig{pool_slots, shape_.extents, 1, false});
    CHECK(pool_->wait_prefaulted(pool_slots, 20));
    acks_ = std::make_shared<Acks>();
    store_ = std::make_unique<SsdStore>(config(), *files_);
    SsdScan scan = store_->scan();
    store_->start(pool_, [acks = acks_](DiskAck ack) { acks->take(std::move(ack)); });
    return scan;
  }
  SsdScan reopen() {
    close();
    return open();
  }
  void close() {
    CHECK(store_->stop(20));
    store_.reset();
  }
  // Leaves no thread behind: from here a process may fork, and its child open.
  void close_with_pool() {
    close();
    pool_.reset();
  }
  void use(FileSystem& files) { files_ = &files; }  // from the next open on
  SsdStore& store() { return *store_; }
  Acks& acks() { return *acks_; }

  void fill(std::int64_t host_slot, std::uint64_t number) {
    for (std::size_t shard = 0; shard < shape_.extents.size(); ++shard) {
      std::memset(at(host_slot, shard), static_cast<int>((number * 7 + shard + 1) & 0xff), shape_.extents[shard]);
      std::memcpy(at(host_slot, shard) + 100, &number, sizeof(number));
    }
  }
  [[nodiscard]] bool holds(std::int64_t host_slot, std::uint64_t number) const {
    for (std::size_t shard = 0; shard < shape_.extents.size(); ++shard) {
      std::vector<std::byte> want(shape_.extents[shard], static_cast<std::byte>((number * 7 + shard + 1) & 0xff));
      std::memcpy(want.data() + 100, &number, sizeof(number));
      if (std::memcmp(at(host_slot, shard), want.data(), want.size()) != 0) return false;
    }
    return true;
  }
  void wipe(std::int64_t host_slot) { fill(host_slot, 0xdeadbeef); }

  // Submits blocks first, first+1, ... from host slots 0, 1, ... to these slots; returns the op's id.
  std::int64_t begin_write(const Ids& slots, std::uint64_t first) {
    OpSpec op = {next_id_++, OpType::h2disk, {}, slots, 0, {}, chain_of(first, slots.size(), true)};
    for (std::size_t i = 0; i < slots.size(); ++i) {
      op.src.push_back(static_cast<std::int64_t>(i));
      fill(static_cast<std::int64_t>(i), first + i);
    }
    store_->submit(op);
    return op.op_id;
  }
  // The same way back, to host slots 8, 9, ...
  std::int64_t begin_read(const Ids& slots, std::uint64_t first) {
    OpSpec op = {next_id_++, OpType::disk2h, slots, {}, 0, {}, chain_of(first, slots.size(), false)};
    for (std::size_t i = 0; i < slots.size(); ++i) {
      op.dst.push_back(static_cast<std::int64_t>(8 + i));
      wipe(static_cast<std::int64_t>(8 + i));
    }
    store_->submit(op);
    return op.op_id;
  }
  DiskAck write(const Ids& slots, std::uint64_t first) { return acks_->wait(begin_write(slots, first)); }
  // What is not named as failed holds the right bytes, whatever happened.
  DiskAck read(const Ids& slots, std::uint64_t first) {
    DiskAck ack = acks_->wait(begin_read(slots, first));
    for (std::size_t i = 0; i < slots.size(); ++i) {
      const bool failed = std::ranges::find(ack.failed, i) != ack.failed.end();
      CHECK(failed || holds(static_cast<std::int64_t>(8 + i), first + i));
    }
    return ack;
  }

 private:
  static constexpr const char* fingerprint = "0123456789abcdef";

  [[nodiscard]] std::byte* at(std::int64_t host_slot, std::size_t shard) const {
    const int index = static_cast<int>(shard);
    return pool_->base(index) + static_cast<std::uint64_t>(host_slot) * pool_->stride_bytes(index);
  }

  StoreShape shape_;
  FileSystem* files_;
  TempDir dir_;
  std::shared_ptr<HostPool> pool_;
  std::shared_ptr<Acks> acks_;
  std::unique_ptr<SsdStore> store_;
  std::int64_t next_id_ = 1;
};

}  // namespace flexkv
