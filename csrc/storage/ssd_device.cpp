#include "storage/ssd_device.h"

#include <algorithm>
#include <cerrno>
#include <new>
#include <system_error>
#include <utility>

#include "transfer/native_thread.h"

namespace flexkv {

namespace {

constexpr double idle_wait_s = 60;
constexpr int max_thread_errors = 8;
constexpr unsigned max_io_threads = 8;
constexpr std::uint64_t buffer_bytes = 256u << 20;  // of one shard, registered at once

}  // namespace

SsdDevice::SsdDevice(FileSystem& files, const SsdDeviceConfig& config)
    : read_depth_(config.read_depth), write_depth_(config.write_depth) {
  directory_ = std::make_unique<SsdDirectory>(files, config.directory);
  slot_bytes_ = directory_->slot_bytes();
  num_slots_ = directory_->num_slots();
  checksums_.resize(num_slots_);
  valid_.resize(num_slots_);
  const unsigned depth = read_depth_ + write_depth_;
  DiskIoConfig io_config;
  io_config.depth = depth;
  io_config.num_threads = std::min(depth, max_io_threads);
  io_config.files = {&directory_->data()};
  io_ = make_disk_io(config.io_engine, io_config, fixed_info_.why_not_io_uring);
  fixed_info_.path = directory_->path();
  fixed_info_.io_engine = io_->name();
  fixed_info_.is_direct = directory_->data().is_direct();
  fixed_info_.origin = flexkv::name_of(directory_->origin());
  fixed_info_.removed = directory_->removed();
  flights_.resize(depth);
  free_tags_.reserve(depth);
  for (std::size_t tag = 0; tag < depth; ++tag) free_tags_.push_back(tag);
  results_.reserve(depth);
  landed_.reserve(std::size_t{2} * depth);
}

SsdDevice::~SsdDevice() = default;

std::vector<ScannedRecord> SsdDevice::scan() {
  const std::lock_guard lock(record_mutex_);
  std::vector<ScannedRecord> records = directory_->scan();
  valid_.assign(num_slots_, false);
  for (const ScannedRecord& found : records) {
    valid_[found.slot] = true;
    checksums_[found.slot] = found.record.data_checksum;
  }
  return records;
}

void SsdDevice::start(std::shared_ptr<HostPool> pool) {
  pool_ = std::move(pool);
  const std::lock_guard lock(inbox_mutex_);
  thread_ = start_native_thread("fkv-ssd", [this] { run(); });
  started_ = true;
}

void SsdDevice::submit(const std::vector<Block>& blocks) {
  const std::uint64_t epoch = epoch_;
  {
    const std::lock_guard lock(inbox_mutex_);
    if (!closed_) {
      const std::size_t before = inbox_.size();
      try {
        for (const Block& block : blocks) {
          inbox_.push_back(block);
          inbox_.back().epoch = epoch;
        }
      } catch (const std::bad_alloc&) {
        inbox_.resize(before);
        throw;
      }
      io_->wake();
      return;
    }
  }
  for (const Block& block : blocks) end(block, {BlockEnd::Kind::dropped, 0, 0, "the disk store stops"});
}

// The thread sleeps only when none is queued: the first wakes it.
void SsdDevice::touch(const Touch& touch) {
  const std::lock_guard lock(inbox_mutex_);
  if (closed_) return;
  if (touches_.size() == max_touches) {
    touches_.pop_front();
    ++counters_.dropped_touches;
  }
  try {
    touches_.push_back(touch);
  } catch (const std::bad_alloc&) {
    ++counters_.dropped_touches;
    return;
  }
  counters_.queued_touches = static_cast<std::int64_t>(touches_.size());
  if (touches_.size() == 1) io_->wake();
}

void SsdDevice::sweep() {
  const std::lock_guard lock(inbox_mutex_);
  sweep_ = true;
  if (!closed_) io_->wake();
}

int SsdDevice::renew() {
  {
    const std::lock_guard lock(inbox_mutex_);
    touches_.clear();
    counters_.queued_touches = 0;
  }
  const std::lock_guard lock(record_mutex_);
  if (!directory_) return ESHUTDOWN;
  ++epoch_;
  valid_.assign(num_slots_, false);
  broken_ = directory_->renew();
  return broken_;
}

void SsdDevice::close() {
  const std::lock_guard lock(inbox_mutex_);
  if (std::exchange(closed_, true)) return;
  io_->wake();
}

bool SsdDevice::wait_ended(std::chrono::steady_clock::time_point deadline) const {
  std::unique_lock lock(inbox_mutex_);
  return ended_changed_.wait_until(lock, deadline, [this] { return ended_ || !started_; });
}

void SsdDevice::join() {
  if (thread_.joinable()) thread_.join();
  io_.reset();
  const std::lock_guard lock(record_mutex_);
  directory_.reset();
}

SsdDeviceInfo SsdDevice::info() const {
  SsdDeviceInfo info = fixed_info_;
  info.queued_reads = counters_.queued_reads;
  info.queued_writes = counters_.queued_writes;
  info.in_flight = counters_.in_flight;
  info.queued_touches = counters_.queued_touches;
  info.dropped_touches = counters_.dropped_touches;
  info.bytes_read = counters_.bytes_read;
  info.bytes_written = counters_.bytes_written;
  info.read_errors = counters_.read_errors;
  info.write_errors = counters_.write_errors;
  info.bad_checksums = counters_.bad_checksums;
  return info;
}

// The top of the thread. Out of memory: nothing new is moved, and what was taken is ended all the same.
void SsdDevice::run() {
  for (int num_errors = 0; num_errors < max_thread_errors; ++num_errors) {
    try {
      while (step()) {
      }
      break;
    } catch (const std::exception&) {
      const std::lock_guard lock(record_mutex_);
      broken_ = ENOMEM;
    }
  }
  sync_at_end();
  const std::lock_guard lock(inbox_mutex_);
  closed_ = true;
  ended_ = true;
  ended_changed_.notify_all();
}

// False when there is nothing left to do, ever.
bool SsdDevice::step() {
  take_inbox();
  add_buffers();
  start_some();
  const bool idle = reads_in_flight_ + writes_in_flight_ == 0 && landed_.empty();
  if (closing_ && idle) {
    while (touch_one()) {  // no more come
    }
    return false;
  }
  results_.clear();
  io_->wait(results_, may_prepare() || !landed_.empty() || has_touches_ ? 0 : idle_wait_s);
  for (const DiskResult& result : results_) take_result(result);
  if (!landed_.empty()) {
    end_one();
  } else if (may_prepare()) {
    start_front(writes_, &SsdDevice::prepare_write);
  }
  if (has_touches_) touch_one();
  return true;
}

// The first of those that are queued. Its slot may have been given to another block since, or be about to get one: then
// the record is of another key, or not valid.
bool SsdDevice::touch_one() {
  Touch touch;
  {
    const std::lock_guard lock(inbox_mutex_);
    if (touches_.empty()) return false;
    touch = touches_.front();
    touches_.pop_front();
    counters_.queued_touches = static_cast<std::int64_t>(touches_.size());
  }
  const std::lock_guard lock(record_mutex_);
  if (broken_ != 0 || !valid_[touch.slot]) return true;
  if (directory_->touch(touch.slot, touch.key, touch.use) != 0) ++counters_.write_errors;
  return true;
}

void SsdDevice::take_inbox() {
  bool sweeps = false;
  {
    const std::lock_guard lock(inbox_mutex_);
    while (!inbox_.empty()) {
      const bool is_read = inbox_.front().op->is_read();
      (is_read ? reads_ : writes_).push_back(inbox_.front());
      inbox_.pop_front();
    }
    sweeps = std::exchange(sweep_, false);
    closing_ = closed_;
    has_touches_ = !touches_.empty();
  }
  if (closing_ || sweeps) {
    drop(reads_, closing_);
    drop(prepared_, closing_);
    drop(writes_, closing_);
  }
  count_queued();
}

void SsdDevice::count_queued() {
  counters_.queued_reads = static_cast<std::int64_t>(reads_.size());
  counters_.queued_writes = static_cast<std::int64_t>(prepared_.size() + writes_.size());
}

template <typename Queued>
void SsdDevice::drop(std::deque<Queued>& queue, bool all) {
  std::erase_if(queue, [all](const Queued& queued) {
    const Block& block = *block_of(&queued);
    if (!all && !block.op->cancelled()) return false;
    end(block, {BlockEnd::Kind::dropped, 0, 0, all ? "the disk store stops" : "it was cancelled"});
    return true;
  });
}

// Starts all that may start: the disk is to have the next blocks before the checksums of the last ones are computed.
void SsdDevice::start_some() {
  while (!reads_.empty() && reads_in_flight_ < read_depth_ && has_room()) start_front(reads_, &SsdDevice::start_read);
  while (!prepared_.empty() && reads_.empty() && writes_in_flight_ < write_depth_ && has_room()) {
    start_front(prepared_, &SsdDevice::start_write);
  }
  count_queued();
}

// What has landed and not ended is bounded.
bool SsdDevice::has_room() const { return landed_.size() < flights_.size(); }

bool SsdDevice::may_prepare() const { return reads_.empty() && !writes_.empty() && prepared_.size() < write_depth_; }

template <typename Queued>
void SsdDevice::start_front(std::deque<Queued>& queue, void (SsdDevice::*begin)(Queued)) {
  Queued queued = std::move(queue.front());
  queue.pop_front();
  const Block block = *block_of(&queued);
  try {
    (this->*begin)(std::move(queued));
  } catch (const std::bad_alloc&) {
    end(block, io_error(block, "start", ENOMEM));
  }
}

void SsdDevice::start_read(Block block) {
  Flight flight;
  BlockEnd bad;
  {
    const std::lock_guard lock(record_mutex_);
    bad = objection(block);
    if (bad.kind == BlockEnd::Kind::good && !valid_[block.slot]) {
      bad = {BlockEnd::Kind::failed, 0, 0, name_of(block) + " has no valid record"};
    }
    flight.checksum = checksums_[block.slot];
    flight.store = directory_->store_id();
  }
  if (bad.kind != BlockEnd::Kind::good) {
    end(block, bad);
    return;
  }
  flight.block = std::move(block);
  launch(std::move(flight), false);
}

void SsdDevice::prepare_write(Block block) {
  Flight flight;
  BlockEnd bad;
  {
    const std::lock_guard lock(record_mutex_);
    bad = objection(block);
    if (bad.kind == BlockEnd::Kind::good) {
      valid_[block.slot] = false;
      const int error = directory_->invalidate(block.slot);
      if (error != 0) bad = io_error(block, "invalidating the record", error);
    }
    flight.store = directory_->store_id();
  }
  if (bad.kind != BlockEnd::Kind::good) {
    if (bad.io_errno != 0) ++counters_.write_errors;
    end(block, bad);
    return;
  }
  flight.block = std::move(block);
  flight.checksum = checksum_of(flight);
  prepared_.push_back(std::move(flight));
}

// The store may have been emptied since it was prepared.
void SsdDevice::start_write(Flight flight) {
  BlockEnd bad;
  {
    const std::lock_guard lock(record_mutex_);
    bad = objection(flight.block);
  }
  if (bad.kind != BlockEnd::Kind::good) {
    end(flight.block, bad);
    return;
  }
  launch(std::move(flight), true);
}

void SsdDevice::launch(Flight flight, bool is_write) {
  DiskRequest request;
  request.file = &directory_->data();  // the thread's alone: `join` follows its end
  request.is_write = is_write;
  request.offset = directory_->offset_of(flight.block.slot);
  request.buffers = extents_of(flight.block);
  flight.block.op->begin();
  const std::size_t tag = free_tags_.back();
  free_tags_.pop_back();
  request.tag = tag;
  flights_[tag] = std::move(flight);
  ++(is_write ? writes_in_flight_ : reads_in_flight_);
  ++counters_.in_flight;
  io_->submit(std::move(request));
}

void SsdDevice::take_result(const DiskResult& result) {
  Flight& flight = flights_.at(result.tag);
  flight.error = result.error;
  --(flight.block.op->is_read() ? reads_in_flight_ : writes_in_flight_);
  landed_.push_back(std::move(flight));
  flight = {};
  free_tags_.push_back(result.tag);
}

void SsdDevice::end_one() {
  if (landed_.empty()) return;
  const Flight flight = std::move(landed_.front());
  landed_.erase(landed_.begin());
  BlockEnd how;
  try {
    how = flight.block.op->is_read() ? end_read(flight) : end_write(flight);
  } catch (const std::bad_alloc&) {
    how = {BlockEnd::Kind::failed, 0, ENOMEM, ""};
  }
  --counters_.in_flight;
  end(flight.block, how);
}

BlockEnd SsdDevice::end_read(const Flight& flight) {
  const Block& block = flight.block;
  if (flight.error != 0) {
    ++counters_.read_errors;
    return io_error(block, "reading", flight.error);
  }
  const bool checks = checksum_of(flight) == flight.checksum;
  const std::lock_guard lock(record_mutex_);
  BlockEnd bad = objection(block);
  if (bad.kind != BlockEnd::Kind::good) return bad;
  if (!checks) {
    ++counters_.bad_checksums;
    std::string error = "the checksum of " + name_of(block) + " does not hold";
    if (valid_[block.slot] && checksums_[block.slot] == flight.checksum) {  // a restart need not find it again
      valid_[block.slot] = false;
      const int failed = directory_->invalidate(block.slot);
      if (failed != 0) error += ", and its record stays: " + std::generic_category().message(failed);
    }
    return {BlockEnd::Kind::bad_checksum, 0, 0, std::move(error)};
  }
  // Its bytes are good; when this fails only its place in the order of use is not kept over a restart.
  const BlockKey& key = block.op->spec().chain.keys[block.at];
  if (directory_->touch(block.slot, key, {block.used_at_us, 0, 0}) != 0) ++counters_.write_errors;
  counters_.bytes_read += slot_bytes_;
  return {BlockEnd::Kind::good, slot_bytes_, 0, ""};
}

BlockEnd SsdDevice::end_write(const Flight& flight) {
  const Block& block = flight.block;
  if (flight.error != 0) {
    ++counters_.write_errors;
    return io_error(block, "writing", flight.error);
  }
  const ChainSpec& chain = block.op->spec().chain;
  SsdRecord record;
  record.key = chain.keys[block.at];
  record.parent = chain.parents[block.at];
  record.data_checksum = flight.checksum;
  record.used_at_us = block.used_at_us;
  record.expiry_s = chain.expiry_s;
  record.tenant = chain.tenant;
  record.group = chain.group;
  record.priority = chain.priority;
  const std::lock_guard lock(record_mutex_);
  BlockEnd bad = objection(block);
  if (bad.kind != BlockEnd::Kind::good) return bad;
  const int error = directory_->write(block.slot, record);
  if (error != 0) {
    ++counters_.write_errors;
    return io_error(block, "writing the record", error);
  }
  valid_[block.slot] = true;
  checksums_[block.slot] = flight.checksum;
  counters_.bytes_written += slot_bytes_;
  return {BlockEnd::Kind::good, slot_bytes_, 0, ""};
}

std::uint64_t SsdDevice::checksum_of(const Flight& flight) const {
  const Block& block = flight.block;
  std::vector<std::span<const std::byte>> extents;
  for (const iovec& extent : extents_of(block)) {
    extents.emplace_back(static_cast<const std::byte*>(extent.iov_base), extent.iov_len);
  }
  return block_checksum(flight.store, block.slot, block.op->spec().chain.keys[block.at], extents);
}

std::vector<iovec> SsdDevice::extents_of(const Block& block) const {
  const auto slot = static_cast<std::uint64_t>(block.op->host_slot(block.at));
  std::vector<iovec> extents;
  extents.reserve(static_cast<std::size_t>(pool_->num_shards()));
  for (int shard = 0; shard < pool_->num_shards(); ++shard) {
    const std::uint64_t stride = pool_->stride_bytes(shard);
    extents.push_back({pool_->base(shard) + slot * stride, stride});
  }
  return extents;
}

// Why the block cannot end well any more. REQUIRES: record_mutex_ held.
BlockEnd SsdDevice::objection(const Block& block) const {
  if (broken_ != 0) return io_error(block, "an earlier failure of the store keeps off", broken_);
  if (block.epoch != epoch_) return {BlockEnd::Kind::failed, 0, 0, "the disk store was emptied meanwhile"};
  return {BlockEnd::Kind::good, 0, 0, ""};
}

BlockEnd SsdDevice::io_error(const Block& block, const char* what, int error) const {
  return {BlockEnd::Kind::failed, 0, error,
          std::string(what) + " " + name_of(block) + ": " + std::generic_category().message(error)};
}

std::string SsdDevice::name_of(const Block& block) const {
  return "slot " + std::to_string(block.slot) + " of " + fixed_info_.path;
}

void SsdDevice::end(const Block& block, const BlockEnd& end) { block.op->end_block(block.at, end); }

// Names what the pool has prefaulted to the engine, a piece per step. It never waits for more.
void SsdDevice::add_buffers() {
  if (!takes_buffers_ || slots_added_ == pool_->num_slots()) return;
  std::uint64_t largest = 1;
  for (int shard = 0; shard < pool_->num_shards(); ++shard) largest = std::max(largest, pool_->stride_bytes(shard));
  const auto piece = static_cast<std::int64_t>(std::max<std::uint64_t>(buffer_bytes / largest, 1));
  const std::int64_t end = std::min(pool_->num_slots(), slots_added_ + piece);
  if (pool_->slots_prefaulted() < end) return;
  for (int shard = 0; takes_buffers_ && shard < pool_->num_shards(); ++shard) {
    const std::uint64_t stride = pool_->stride_bytes(shard);
    const auto num_slots = static_cast<std::uint64_t>(end - slots_added_);
    takes_buffers_ =
        io_->add_buffer({pool_->base(shard) + static_cast<std::uint64_t>(slots_added_) * stride, num_slots * stride});
  }
  slots_added_ = end;
}

void SsdDevice::sync_at_end() {
  const std::lock_guard lock(record_mutex_);
  if (directory_->sync() != 0) ++counters_.write_errors;
}

}  // namespace flexkv
