#include "transfer/transfer_engine.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <stdexcept>
#include <thread>

#include "transfer/engine_state.h"
#include "transfer/io_loop.h"
#include "transfer/native_thread.h"
#include "transfer/timeout.h"

namespace flexkv {

namespace {

void check_range(const OpSpec& op, const std::vector<std::int64_t>& ids, std::uint64_t end, const char* what) {
  for (const std::int64_t id : ids) {
    if (id < 0 || static_cast<std::uint64_t>(id) >= end) {
      throw std::invalid_argument("op " + std::to_string(op.op_id) + ": " + what + " " + std::to_string(id) +
                                  " is out of range [0, " + std::to_string(end) + ")");
    }
  }
}

// The file that bind made, so that only it is unlinked.
struct SocketFile {
  std::string path;
  dev_t device = 0;
  ino_t inode = 0;

  void remember() {
    struct stat info = {};
    if (::lstat(path.c_str(), &info) == 0) {
      device = info.st_dev;
      inode = info.st_ino;
    }
  }
  void unlink_if_same() const {
    struct stat info = {};
    if (inode != 0 && ::lstat(path.c_str(), &info) == 0 && info.st_dev == device && info.st_ino == inode) {
      (void)::unlink(path.c_str());
    }
  }
};

}  // namespace

class TransferEngine::Impl {
 public:
  explicit Impl(TransferEngineConfig config)
      : max_graphs_(config.max_graphs),
        socket_file_{std::move(config.socket_path)},
        state(config.num_ranks, config.replicas) {}

  void start() {
    const std::lock_guard lifecycle(lifecycle_mutex_);
    {
      const std::lock_guard lock(state.mutex);
      if (state.phase != EnginePhase::idle) throw std::runtime_error("the transfer engine was started before");
    }
    Fd listener = listen_unix(socket_file_.path);
    socket_file_.remember();
    loop_.emplace(state, std::move(listener));
    const std::lock_guard lock(state.mutex);
    thread_ = start_native_thread("fkv-transfer", [this] { loop_->run(); });
    state.phase = EnginePhase::serving;
  }

  [[nodiscard]] bool stop(double timeout_s) {
    const std::lock_guard lifecycle(lifecycle_mutex_);
    const double deadline_s = monotonic_s() + bounded_timeout(timeout_s).count();
    {
      std::unique_lock lock(state.mutex);
      if (state.phase == EnginePhase::idle) state.phase = EnginePhase::stopped;
      if (state.phase == EnginePhase::stopped) {
        state.changed.notify_all();
        return stopped_clean_;
      }
      const bool is_running = state.phase == EnginePhase::serving || state.phase == EnginePhase::broken;
      if (is_running) state.phase = EnginePhase::draining;
      state.graphs.cancel_all();
      state.publish();
      state.io_event.signal();
      (void)state.changed.wait_for(lock, bounded_timeout(timeout_s),
                                   [&] { return state.graphs.num_held() == 0 || state.io_ended; });
    }
    const bool disk_drained = stop_disk(deadline_s);
    {
      const std::lock_guard lock(state.mutex);
      if (state.phase == EnginePhase::draining) state.phase = EnginePhase::disconnecting;
      state.exit_deadline_s = deadline_s;
      state.io_event.signal();
    }
    thread_.join();
    door_->shut();
    loop_.reset();
    socket_file_.unlink_if_same();
    const std::lock_guard lock(state.mutex);
    state.publish();
    state.phase = EnginePhase::stopped;
    state.changed.notify_all();
    stopped_clean_ = state.graphs.num_held() == 0 && state.all_disconnected && disk_drained;
    // An agent of this process, or the disk, may still copy to or from the pool's mapping: it is never unmapped.
    if (!state.all_disconnected || !disk_drained) kept_forever_ = new Kept{state.pool, state.disk};
    return stopped_clean_;
  }

  void set_disk(std::shared_ptr<DiskExecutor> disk) {
    if (!disk) throw std::invalid_argument("disk is None");
    const std::lock_guard lifecycle(lifecycle_mutex_);  // no stop meanwhile
    std::shared_ptr<HostPool> pool;
    {
      const std::lock_guard lock(state.mutex);
      if (state.phase != EnginePhase::serving) throw std::runtime_error("the transfer engine does not run");
      if (!state.pool) throw std::runtime_error("the transfer engine has no pool yet");
      if (state.disk && !state.disk->is_stopped()) {
        throw std::runtime_error("the transfer engine has a disk store already; stop it first");
      }
      pool = state.pool;
    }
    disk->start(std::move(pool), [door = door_](DiskAck ack) { door->acknowledge(std::move(ack)); });
    const std::lock_guard lock(state.mutex);
    lose_stopped_disk();
    state.disk.swap(disk);  // what goes ends outside of the mutex
    state.graphs.executor_up(state.graphs.disk());
    state.publish();
    state.io_event.signal();
  }

  void set_pool(std::shared_ptr<HostPool> pool) {
    if (!pool) throw std::invalid_argument("pool is None");
    const std::lock_guard lock(state.mutex);
    if (state.pool) throw std::runtime_error("the transfer engine has a pool already");
    if (!state.ranks.all_registered()) throw std::runtime_error("not all ranks have registered");
    if (pool->num_shards() != static_cast<int>(state.ranks.num_segments())) {
      throw std::invalid_argument("pool has " + std::to_string(pool->num_shards()) + " shards for " +
                                  std::to_string(state.ranks.size()) + " ranks, " +
                                  std::to_string(state.ranks.replicas()) + " on each");
    }
    for (std::uint32_t rank = 0; rank < state.ranks.size(); ++rank) {
      const std::uint64_t pool_bytes = pool->slot_bytes(static_cast<int>(state.ranks.segment_of(rank)));
      if (pool_bytes != state.ranks.info(rank).slot_bytes) {
        throw std::invalid_argument("pool has slots of " + std::to_string(pool_bytes) + " bytes for rank " +
                                    std::to_string(rank) + ", whose blocks have " +
                                    std::to_string(state.ranks.info(rank).slot_bytes));
      }
    }
    state.pool = std::move(pool);
    state.changed.notify_all();
    state.io_event.signal();
  }

  void submit(GraphSpec graph) {
    const std::lock_guard lock(state.mutex);
    if (state.phase != EnginePhase::serving) throw std::runtime_error("the transfer engine does not run");
    if (state.graphs.num_known() >= max_graphs_) {
      throw std::runtime_error("the transfer engine holds " + std::to_string(max_graphs_) +
                               " graphs, the most it takes");
    }
    for (const OpSpec& op : graph.ops) {
      if (needs_ranks(op.type)) check_ids(op);
      if (needs_disk(op.type)) check_disk_ids(op);
    }
    lose_stopped_disk();
    state.graphs.submit(std::move(graph), monotonic_s());
    state.publish();
    state.io_event.signal();
  }

  [[nodiscard]] std::vector<Completion> poll(std::size_t max) {
    std::vector<Completion> taken;
    const std::lock_guard lock(state.mutex);
    while (!state.completions.empty() && taken.size() < max) {
      taken.push_back(std::move(state.completions.front()));
      state.completions.pop_front();
      if (taken.back().kind == CompletionKind::graph_released) state.graphs.forget(taken.back().graph_id);
    }
    if (state.completions.empty()) state.completion_event.drain();
    return taken;
  }

  [[nodiscard]] std::int64_t slots_available() {
    const std::lock_guard lock(state.mutex);
    if (!state.pool) return 0;
    const std::int64_t usable = std::min(state.pool->slots_prefaulted(), state.ranks.slots_mapped());
    state.slots_available = std::max(state.slots_available, usable);
    return state.slots_available;
  }

  [[nodiscard]] bool in_forked_child() const { return ::getpid() != owner_pid_; }

 private:
  void check_ids(const OpSpec& op) const {
    if (op.src.empty() && op.dst.empty()) return;
    if (!state.pool) throw std::runtime_error("the transfer engine has no pool yet");
    const bool load = op.type == OpType::h2d;
    check_range(op, load ? op.src : op.dst, static_cast<std::uint64_t>(state.pool->num_slots()), "slot");
    check_range(op, load ? op.dst : op.src, state.ranks.least_num_blocks(), "block");
  }

  // Without a disk the graph fails as a whole: nothing of it starts.
  void check_disk_ids(const OpSpec& op) const {
    if ((op.src.empty() && op.dst.empty()) || !state.disk) return;
    const bool load = op.type == OpType::disk2h;
    check_range(op, load ? op.dst : op.src, static_cast<std::uint64_t>(state.pool->num_slots()), "slot");
    check_range(op, load ? op.src : op.dst, static_cast<std::uint64_t>(state.disk->num_slots()), "disk slot");
  }

  // It may be stopped at any time, by its owner. What it has in hand it still acknowledges. REQUIRES: mutex held.
  void lose_stopped_disk() {
    if (!state.disk || !state.disk->is_stopped()) return;
    state.graphs.executor_lost(state.graphs.disk(), false, "the disk store was stopped");
  }

  [[nodiscard]] bool stop_disk(double deadline_s) {
    std::shared_ptr<DiskExecutor> disk;
    {
      const std::lock_guard lock(state.mutex);
      disk = state.disk;
    }
    return !disk || disk->stop(std::max(0.0, deadline_s - monotonic_s()));
  }

  struct Kept {
    std::shared_ptr<HostPool> pool;
    std::shared_ptr<DiskExecutor> disk;
  };

  const pid_t owner_pid_ = ::getpid();
  const std::size_t max_graphs_;
  SocketFile socket_file_;
  std::mutex lifecycle_mutex_;  // start and stop, one at a time
  bool stopped_clean_ = true;
  const Kept* kept_forever_ = nullptr;  // never deleted, see stop

 public:
  EngineState state;

 private:
  std::shared_ptr<DiskDoor> door_ = std::make_shared<DiskDoor>(state);
  std::optional<IoLoop> loop_;
  std::thread thread_;
};

TransferEngine::TransferEngine(TransferEngineConfig config) {
  if (config.socket_path.empty()) throw std::invalid_argument("socket_path is empty");
  if (config.max_graphs == 0) throw std::invalid_argument("max_graphs is 0");
  impl_ = std::make_unique<Impl>(std::move(config));
}

TransferEngine::~TransferEngine() {
  if (impl_->in_forked_child()) {
    (void)impl_.release();  // its thread is not there and its mutex may be held: all of it is the parent's
  } else {
    (void)impl_->stop(destructor_timeout_s);
  }
}

void TransferEngine::start() {
  if (impl_->in_forked_child()) throw std::runtime_error("a transfer engine does not work in a forked child");
  impl_->start();
}

bool TransferEngine::stop(double timeout_s) { return impl_->in_forked_child() || impl_->stop(timeout_s); }

std::vector<RankInfo> TransferEngine::ranks() const {
  if (impl_->in_forked_child()) return {};
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.ranks.infos();
}

bool TransferEngine::wait_ranks(double timeout_s) const {
  if (impl_->in_forked_child()) return false;
  const EngineState& state = impl_->state;
  std::unique_lock lock(state.mutex);
  (void)state.changed.wait_for(lock, bounded_timeout(timeout_s),
                               [&] { return state.ranks.all_registered() || state.phase == EnginePhase::stopped; });
  return state.ranks.all_registered();
}

std::uint64_t TransferEngine::num_device_blocks() const { return impl_->state.num_device_blocks; }

void TransferEngine::set_pool(std::shared_ptr<HostPool> pool) {
  if (impl_->in_forked_child()) throw std::runtime_error("a transfer engine does not work in a forked child");
  impl_->set_pool(std::move(pool));
}

void TransferEngine::set_disk(std::shared_ptr<DiskExecutor> disk) {
  if (impl_->in_forked_child()) throw std::runtime_error("a transfer engine does not work in a forked child");
  impl_->set_disk(std::move(disk));
}

std::int64_t TransferEngine::slots_available() const { return impl_->in_forked_child() ? 0 : impl_->slots_available(); }

bool TransferEngine::wait_slots(std::int64_t slots, double timeout_s) const {
  if (impl_->in_forked_child()) return false;
  const EngineState& state = impl_->state;
  const double deadline_s = monotonic_s() + bounded_timeout(timeout_s).count();
  std::unique_lock lock(state.mutex);
  (void)state.changed.wait_for(lock, bounded_timeout(timeout_s), [&] {
    return (state.pool && state.ranks.slots_mapped() >= slots) || state.phase == EnginePhase::stopped;
  });
  const std::shared_ptr<HostPool> pool = state.pool;
  lock.unlock();
  return pool && pool->wait_prefaulted(slots, deadline_s - monotonic_s()) && impl_->slots_available() >= slots;
}

void TransferEngine::submit(GraphSpec graph) {
  if (impl_->in_forked_child()) throw std::runtime_error("a transfer engine does not work in a forked child");
  impl_->submit(std::move(graph));
}

void TransferEngine::cancel(std::int64_t graph_id) {
  if (impl_->in_forked_child()) return;
  const std::lock_guard lock(impl_->state.mutex);
  impl_->state.graphs.cancel(graph_id);
  impl_->state.publish();
  impl_->state.io_event.signal();
}

void TransferEngine::lose_load(std::uint64_t layer_ticket) {
  if (layer_ticket == 0) throw std::invalid_argument("layer_ticket is 0");
  if (impl_->in_forked_child()) return;
  const std::lock_guard lock(impl_->state.mutex);
  impl_->state.graphs.lose_load(layer_ticket);
  impl_->state.io_event.signal();
}

std::vector<Completion> TransferEngine::poll(std::size_t max) {
  return impl_->in_forked_child() ? std::vector<Completion>() : impl_->poll(max);
}

bool TransferEngine::wait(double timeout_s) {
  if (impl_->in_forked_child()) return false;
  const EngineState& state = impl_->state;
  std::unique_lock lock(state.mutex);
  (void)state.changed.wait_for(lock, bounded_timeout(timeout_s),
                               [&] { return !state.completions.empty() || state.phase == EnginePhase::stopped; });
  return !state.completions.empty();
}

int TransferEngine::event_fd() const { return impl_->state.completion_event.fd(); }

std::int64_t TransferEngine::num_graphs() const {
  if (impl_->in_forked_child()) return 0;
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.graphs.num_held();
}

std::uint64_t TransferEngine::protocol_errors() const {
  if (impl_->in_forked_child()) return 0;
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.protocol_errors;
}

std::string TransferEngine::last_protocol_error() const {
  if (impl_->in_forked_child()) return "";
  const std::lock_guard lock(impl_->state.mutex);
  return impl_->state.last_protocol_error;
}

}  // namespace flexkv
