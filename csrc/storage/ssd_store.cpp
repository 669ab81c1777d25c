#include "storage/ssd_store.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <limits>
#include <mutex>
#include <set>
#include <stdexcept>
#include <unordered_map>
#include <utility>

#include "storage/use_clock.h"
#include "transfer/timeout.h"

namespace flexkv {

namespace {

constexpr double end_timeout_s = 5.0;  // of the destructor, and of a start that failed
constexpr std::uint8_t max_priority = 7;
constexpr unsigned max_queue_depth = 512;  // reads and writes each; the sum is the most a DiskIo takes

void check_depth(const char* name, unsigned depth) {
  if (depth >= 1 && depth <= max_queue_depth) return;
  throw std::invalid_argument(std::string(name) + " is " + std::to_string(depth) + ", must be 1 to " +
                              std::to_string(max_queue_depth));
}

void check_config(const SsdStoreConfig& config) {
  if (config.directories.empty()) throw std::invalid_argument("directories is empty, must name at least one");
  std::set<std::string> seen;
  for (const std::string& directory : config.directories) {
    if (!seen.insert(directory).second) {
      throw std::invalid_argument("directories has '" + directory + "' twice; name each once");
    }
  }
  check_depth("read_depth", config.read_depth);
  check_depth("write_depth", config.write_depth);
}

}  // namespace

void SsdScan::reserve(std::size_t num_rows) {
  slots.reserve(num_rows);
  keys.reserve(num_rows);
  parents.reserve(num_rows);
  expiry_s.reserve(num_rows);
  tenants.reserve(num_rows);
  groups.reserve(num_rows);
  priorities.reserve(num_rows);
}

void SsdScan::push_back(std::int64_t slot, const SsdRecord& record) {
  slots.push_back(slot);
  keys.push_back(record.key);
  parents.push_back(record.parent);
  expiry_s.push_back(record.expiry_s);
  tenants.push_back(record.tenant);
  groups.push_back(record.group);
  priorities.push_back(record.priority);
}

class SsdStore::Impl {
 public:
  Impl(const SsdStoreConfig& config, FileSystem& files) : extent_bytes_(config.extent_bytes) {
    check_config(config);
    const std::size_t num_directories = config.directories.size();
    std::uint64_t least_slots = std::numeric_limits<std::uint64_t>::max();
    for (const std::string& root : config.directories) {
      SsdDeviceConfig device;
      device.directory = {root,          config.fingerprint,      config.model,
                          extent_bytes_, config.tokens_per_block, config.capacity_bytes / num_directories};
      device.io_engine = config.io_engine;
      device.read_depth = config.read_depth;
      device.write_depth = config.write_depth;
      devices_.push_back(std::make_unique<SsdDevice>(files, device));
      least_slots = std::min(least_slots, devices_.back()->num_slots());
    }
    num_slots_ = static_cast<std::int64_t>(least_slots * num_directories);
    for (const std::uint64_t bytes : extent_bytes_) slot_bytes_ += bytes;
  }

  [[nodiscard]] SsdScan scan() {
    const std::lock_guard lifecycle(lifecycle_mutex_);
    if (started_ || stopped_) throw std::runtime_error("scan must be called before the SSD store is started");
    // Memory that is touched for the first time costs more than all else here: rows stay where they were read.
    struct Row {
      std::uint64_t used_at_us;
      std::int64_t slot;
      const SsdRecord* record;
    };
    std::vector<std::vector<ScannedRecord>> found;
    std::size_t num_found = 0;
    for (const auto& device : devices_) num_found += found.emplace_back(device->scan()).size();
    std::vector<Row> rows;
    rows.reserve(num_found);
    for (std::size_t at = 0; at < found.size(); ++at) {
      for (const ScannedRecord& scanned : found[at]) {
        const auto slot = static_cast<std::int64_t>(scanned.slot * devices_.size() + at);
        if (slot < num_slots_) rows.push_back({scanned.record.used_at_us, slot, &scanned.record});
      }
    }
    std::ranges::sort(rows, {}, [](const Row& row) { return std::pair(row.used_at_us, row.slot); });
    if (!rows.empty()) uses_.pass(rows.back().used_at_us);
    SsdScan scan;
    scan.reserve(rows.size());
    for (const Row& row : rows) scan.push_back(row.slot, *row.record);
    return scan;
  }

  void start(const std::shared_ptr<HostPool>& pool, std::function<void(DiskAck)> done) {
    const std::lock_guard lifecycle(lifecycle_mutex_);
    if (started_) throw std::invalid_argument("the SSD store was started before; open another one");
    if (stopped_) throw std::invalid_argument("the SSD store was stopped; open another one");
    check_pool(*pool);
    done_ = std::move(done);
    started_ = true;
    try {
      for (const auto& device : devices_) device->start(pool);
    } catch (const std::system_error&) {
      stopped_ = true;
      (void)end_devices(end_timeout_s);
      throw;
    }
  }

  void submit(const OpSpec& spec) {
    const auto op = std::make_shared<SsdOp>(spec, [this](DiskAck ack) { op_ended(std::move(ack)); });
    std::vector<std::vector<SsdDevice::Block>> shares(devices_.size());
    const std::uint64_t first_us = uses_.take(spec.src.size());
    for (std::uint32_t at = 0; at < spec.src.size(); ++at) {
      const auto slot = static_cast<std::uint64_t>(op->disk_slot(at));
      shares[slot % devices_.size()].push_back({op, at, slot / devices_.size(), UseClock::nth(first_us, at), 0});
    }
    {
      const std::lock_guard lock(ops_mutex_);
      if (!ops_.try_emplace(spec.op_id, Entry{op, false}).second) {
        throw std::invalid_argument("op " + std::to_string(spec.op_id) + " is in the SSD store already");
      }
    }
    for (std::size_t at = 0; at < devices_.size(); ++at) {
      if (!shares[at].empty()) hand_over(*devices_[at], shares[at]);
    }
  }

  void cancel(std::int64_t op_id) {
    {
      const std::lock_guard lock(ops_mutex_);
      const auto found = ops_.find(op_id);
      if (found == ops_.end()) return;
      found->second.op->cancel();
    }
    for (const auto& device : devices_) device->sweep();
  }

  void touch(std::int64_t slot, const BlockKey& key, std::uint32_t expiry_s, std::uint8_t priority) {
    if (slot < 0 || slot >= num_slots_) {
      throw std::invalid_argument("slot " + std::to_string(slot) + " is out of range [0, " +
                                  std::to_string(num_slots_) + ")");
    }
    if (priority > max_priority) {
      throw std::invalid_argument("priority must be in [0, 7], got " + std::to_string(priority));
    }
    const auto at = static_cast<std::uint64_t>(slot);
    devices_[at % devices_.size()]->touch({at / devices_.size(), key, {uses_.take(1), expiry_s, priority}});
  }

  [[nodiscard]] int renew() {
    const std::lock_guard one_at_a_time(renew_mutex_);
    int first_error = 0;
    for (const auto& device : devices_) {
      const int error = device->renew();
      if (first_error == 0) first_error = error;
    }
    const std::lock_guard lock(ops_mutex_);
    for (auto& [op_id, entry] : ops_) entry.outdated = true;  // blocks of it may have been read before
    return first_error;
  }

  // False: `self` keeps all of it for good.
  [[nodiscard]] bool stop(double timeout_s, const std::shared_ptr<Impl>& self) {
    stopped_ = true;
    const std::lock_guard lifecycle(lifecycle_mutex_);
    const bool ended = end_devices(timeout_s);
    if (!ended) keep_forever(self);
    return ended;
  }

  // It is its own owner from now on.
  void keep_forever(std::shared_ptr<Impl> self) { self_ = std::move(self); }

  [[nodiscard]] bool is_stopped() const { return stopped_; }
  [[nodiscard]] std::int64_t num_slots() const { return num_slots_; }
  [[nodiscard]] std::uint64_t slot_bytes() const { return slot_bytes_; }
  [[nodiscard]] bool in_forked_child() const { return ::getpid() != owner_pid_; }

  [[nodiscard]] std::vector<SsdDeviceInfo> devices() const {
    std::vector<SsdDeviceInfo> infos;
    infos.reserve(devices_.size());
    for (const auto& device : devices_) infos.push_back(device->info());
    return infos;
  }

 private:
  struct Entry {
    std::shared_ptr<SsdOp> op;
    bool outdated = false;  // the store was emptied since it came
  };

  void check_pool(const HostPool& pool) const {
    std::vector<std::uint64_t> strides;
    strides.reserve(static_cast<std::size_t>(pool.num_shards()));
    for (int shard = 0; shard < pool.num_shards(); ++shard) strides.push_back(pool.stride_bytes(shard));
    if (strides == extent_bytes_) return;
    const auto text = [](const std::vector<std::uint64_t>& values) {
      std::string joined;
      for (const std::uint64_t value : values) joined += (joined.empty() ? "" : ", ") + std::to_string(value);
      return "[" + joined + "]";
    };
    throw std::invalid_argument("the pool's strides are " + text(strides) + ", the SSD store has extent_bytes " +
                                text(extent_bytes_) + "; they must be equal");
  }

  static void hand_over(SsdDevice& device, const std::vector<SsdDevice::Block>& blocks) {
    try {
      device.submit(blocks);
    } catch (const std::bad_alloc&) {  // other devices may have their share: the op has come
      for (const SsdDevice::Block& block : blocks) {
        block.op->end_block(block.at, {BlockEnd::Kind::failed, 0, ENOMEM, "out of memory"});
      }
    }
  }

  // Under the mutex, so that no ack of an op of before comes after `renew` has returned.
  void op_ended(DiskAck ack) {
    const std::lock_guard lock(ops_mutex_);
    const auto found = ops_.find(ack.op_id);
    if (found->second.outdated) {
      const std::size_t num_blocks = found->second.op->spec().src.size();
      ack.failed.resize(num_blocks);
      for (std::size_t at = 0; at < num_blocks; ++at) ack.failed[at] = static_cast<std::uint32_t>(at);
      ack.bytes = 0;
      if (ack.error.empty()) ack.error = "the disk store was emptied meanwhile";
    }
    ops_.erase(found);  // the caller holds the op
    done_(std::move(ack));
  }

  // REQUIRES: lifecycle_mutex_ held.
  [[nodiscard]] bool end_devices(double timeout_s) {
    using Clock = std::chrono::steady_clock;
    const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(bounded_timeout(timeout_s));
    for (const auto& device : devices_) device->close();
    bool ended = true;
    for (const auto& device : devices_) ended = device->wait_ended(deadline) && ended;
    if (!ended || std::exchange(joined_, ended)) return ended;
    for (const auto& device : devices_) device->join();
    return true;
  }

  const pid_t owner_pid_ = ::getpid();
  const std::vector<std::uint64_t> extent_bytes_;
  std::int64_t num_slots_ = 0;
  std::uint64_t slot_bytes_ = 0;
  std::vector<std::unique_ptr<SsdDevice>> devices_;
  std::function<void(DiskAck)> done_;  // set before the devices' threads are started
  UseClock uses_;
  std::atomic<bool> stopped_ = false;
  std::mutex lifecycle_mutex_;  // scan, start and stop, one at a time
  bool started_ = false;
  bool joined_ = false;
  std::shared_ptr<Impl> self_;  // never reset, see keep_forever
  std::mutex renew_mutex_;
  std::mutex ops_mutex_;  // guards ops_
  std::unordered_map<std::int64_t, Entry> ops_;
};

SsdStore::SsdStore(const SsdStoreConfig& config, FileSystem& files) : impl_(std::make_shared<Impl>(config, files)) {}

SsdStore::~SsdStore() {
  if (impl_->in_forked_child()) {
    impl_->keep_forever(impl_);  // its threads are not there: all of it is the parent's
  } else {
    (void)impl_->stop(end_timeout_s, impl_);
  }
}

std::int64_t SsdStore::num_slots() const { return impl_->num_slots(); }

std::uint64_t SsdStore::slot_bytes() const { return impl_->slot_bytes(); }

SsdScan SsdStore::scan() {
  if (impl_->in_forked_child()) throw std::runtime_error("an SSD store does not work in a forked child");
  return impl_->scan();
}

void SsdStore::start(std::shared_ptr<HostPool> pool, std::function<void(DiskAck)> done) {
  if (impl_->in_forked_child()) throw std::runtime_error("an SSD store does not work in a forked child");
  impl_->start(pool, std::move(done));
}

void SsdStore::submit(const OpSpec& op) {
  if (impl_->in_forked_child()) throw std::runtime_error("an SSD store does not work in a forked child");
  impl_->submit(op);
}

void SsdStore::cancel(std::int64_t op_id) {
  if (!impl_->in_forked_child()) impl_->cancel(op_id);
}

void SsdStore::touch(std::int64_t slot, const BlockKey& key, std::uint32_t expiry_s, std::uint8_t priority) {
  if (!impl_->in_forked_child()) impl_->touch(slot, key, expiry_s, priority);
}

int SsdStore::renew() { return impl_->in_forked_child() ? ECHILD : impl_->renew(); }

bool SsdStore::stop(double timeout_s) { return impl_->in_forked_child() || impl_->stop(timeout_s, impl_); }

bool SsdStore::is_stopped() const { return impl_->is_stopped(); }

std::vector<SsdDeviceInfo> SsdStore::devices() const { return impl_->devices(); }

}  // namespace flexkv
