#include "tests/ssd_store_kit.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "storage/ssd_store.h"
#include "tests/check.h"

namespace flexkv {

void Acks::take(DiskAck ack) {
  const std::lock_guard lock(mutex_);
  const std::int64_t op_id = ack.op_id;
  CHECK(acks_.emplace(op_id, std::move(ack)).second);
  changed_.notify_all();
}

DiskAck Acks::wait(std::int64_t op_id) {
  std::unique_lock lock(mutex_);
  CHECK(changed_.wait_for(lock, std::chrono::seconds(60), [&] { return acks_.contains(op_id); }));
  DiskAck ack = std::move(acks_.at(op_id));
  acks_.erase(op_id);
  return ack;
}

bool Acks::has(std::int64_t op_id) const {
  const std::lock_guard lock(mutex_);
  return acks_.contains(op_id);
}

SsdStoreConfig StoreKit::config() const {
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

SsdScan StoreKit::open() {
  if (pool_ == nullptr) pool_ = std::make_shared<HostPool>(HostPoolConfig{pool_slots, shape_.extents, 1, false});
  CHECK(pool_->wait_prefaulted(pool_slots, 20));
  acks_ = std::make_shared<Acks>();
  store_ = std::make_unique<SsdStore>(config(), *files_);
  SsdScan scan = store_->scan();
  store_->start(pool_, [acks = acks_](DiskAck ack) { acks->take(std::move(ack)); });
  return scan;
}

SsdScan StoreKit::reopen() {
  close();
  return open();
}

void StoreKit::close() {
  CHECK(store_->stop(20));
  store_.reset();
}

void StoreKit::close_with_pool() {
  close();
  pool_.reset();
}

void StoreKit::fill(std::int64_t host_slot, std::uint64_t number) {
  for (std::size_t shard = 0; shard < shape_.extents.size(); ++shard) {
    std::memset(at(host_slot, shard), static_cast<int>((number * 7 + shard + 1) & 0xff), shape_.extents[shard]);
    std::memcpy(at(host_slot, shard) + 100, &number, sizeof(number));
  }
}

bool StoreKit::holds(std::int64_t host_slot, std::uint64_t number) const {
  for (std::size_t shard = 0; shard < shape_.extents.size(); ++shard) {
    std::vector<std::byte> want(shape_.extents[shard], static_cast<std::byte>((number * 7 + shard + 1) & 0xff));
    std::memcpy(want.data() + 100, &number, sizeof(number));
    if (std::memcmp(at(host_slot, shard), want.data(), want.size()) != 0) return false;
  }
  return true;
}

std::int64_t StoreKit::begin_write(const Ids& slots, std::uint64_t first) {
  OpSpec op = {next_id_++, OpType::h2disk, {}, slots, 0, {}, chain_of(first, slots.size(), true)};
  for (std::size_t i = 0; i < slots.size(); ++i) {
    op.src.push_back(static_cast<std::int64_t>(i));
    fill(static_cast<std::int64_t>(i), first + i);
  }
  store_->submit(op);
  return op.op_id;
}

std::int64_t StoreKit::begin_read(const Ids& slots, std::uint64_t first) {
  OpSpec op = {next_id_++, OpType::disk2h, slots, {}, 0, {}, chain_of(first, slots.size(), false)};
  for (std::size_t i = 0; i < slots.size(); ++i) {
    op.dst.push_back(static_cast<std::int64_t>(8 + i));
    wipe(static_cast<std::int64_t>(8 + i));
  }
  store_->submit(op);
  return op.op_id;
}

DiskAck StoreKit::read(const Ids& slots, std::uint64_t first) {
  DiskAck ack = acks_->wait(begin_read(slots, first));
  for (std::size_t i = 0; i < slots.size(); ++i) {
    const bool failed = std::ranges::find(ack.failed, i) != ack.failed.end();
    CHECK(failed || holds(static_cast<std::int64_t>(8 + i), first + i));
  }
  return ack;
}

std::byte* StoreKit::at(std::int64_t host_slot, std::size_t shard) const {
  const int index = static_cast<int>(shard);
  return pool_->base(index) + static_cast<std::uint64_t>(host_slot) * pool_->stride_bytes(index);
}

}  // namespace flexkv
