#include "transfer/copy_agent.h"

#include <sys/un.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <thread>
#include <utility>
#include <vector>

#include "transfer/agent_lane.h"
#include "transfer/agent_link.h"
#include "transfer/copy_engine.h"
#include "transfer/native_thread.h"
#include "transfer/timeout.h"
#include "transfer/wake_event.h"

namespace flexkv {

using Clock = std::chrono::steady_clock;
using protocol::Direction;

namespace {

constexpr double stop_timeout_s = 5.0;  // of the destructor

AgentConfig checked(AgentConfig config) {
  if (config.socket_path.empty() || config.socket_path.size() >= sizeof(sockaddr_un::sun_path)) {
    throw std::invalid_argument("socket_path must have 1 .. " + std::to_string(sizeof(sockaddr_un::sun_path) - 1) +
                                " bytes, not '" + config.socket_path + "'");
  }
  if (config.num_ranks == 0 || config.rank >= config.num_ranks) {
    throw std::invalid_argument("rank " + std::to_string(config.rank) + " is not one of " +
                                std::to_string(config.num_ranks) + " ranks");
  }
  if (config.tokens_per_block == 0) throw std::invalid_argument("tokens_per_block is 0");
  if (config.layout_tag.size() > protocol::max_tag_bytes) {
    throw std::invalid_argument("layout_tag has more than " + std::to_string(protocol::max_tag_bytes) + " bytes");
  }
  return config;
}

Clock::duration stuck_after(const AgentConfig& config) {
  return std::chrono::duration_cast<Clock::duration>(bounded_timeout(config.stuck_after_s));
}

DeviceLayout checked(DeviceLayout layout) {
  layout.validate();
  return layout;
}

}  // namespace

struct CopyAgent::Core {
  Core(AgentConfig config_in, DeviceLayout layout_in, std::shared_ptr<CopyBackend> backend_in)
      : config(checked(std::move(config_in))),
        layout(checked(std::move(layout_in))),
        backend(backend_in ? std::move(backend_in) : std::make_shared<CpuBackend>(layout, config.copy_threads)),
        loads(backend->make_copier(Direction::load), wake, gate, stuck_after(config)),
        stores(backend->make_copier(Direction::store), wake, gate, stuck_after(config)),
        link(config, layout, *backend, loads, stores, gate, wake) {}

  const pid_t owner = ::getpid();
  const AgentConfig config;
  const DeviceLayout layout;
  const std::shared_ptr<CopyBackend> backend;
  WakeEvent wake;
  LayerGate gate;
  AgentLane loads;
  AgentLane stores;
  AgentLink link;

  std::mutex lifecycle;  // serializes start and stop; guards started, stopped and threads
  bool started = false;
  bool stopped = false;
  std::vector<std::thread> threads;

  std::mutex mutex;
  std::condition_variable ended;
  std::size_t num_running = 0;  // guarded by mutex
};

CopyAgent::CopyAgent(AgentConfig config, DeviceLayout layout, std::shared_ptr<CopyBackend> backend)
    : core_(std::make_shared<Core>(std::move(config), std::move(layout), std::move(backend))) {}

CopyAgent::~CopyAgent() {
  if (!in_owner()) {
    // The threads' share of the core was not inherited; destroying it would wait for them. It stays, in the child only.
    // Without memory for it the child ends here.
    (void)new std::shared_ptr<Core>(std::move(core_));  // NOLINT(bugprone-unhandled-exception-at-new)
    return;
  }
  if (!stop(stop_timeout_s)) {
    const std::lock_guard lock(core_->lifecycle);
    for (std::thread& thread : core_->threads) thread.detach();
  }
}

bool CopyAgent::in_owner() const { return core_->owner == ::getpid(); }

void CopyAgent::start() {
  if (!in_owner()) return;
  const std::lock_guard lock(core_->lifecycle);
  if (core_->started || core_->stopped) throw std::logic_error("a copy agent is started once");
  const auto launch = [this](const char* name, std::function<void(Core&)> body) {
    {
      const std::lock_guard count_lock(core_->mutex);
      ++core_->num_running;
    }
    try {
      core_->threads.push_back(start_native_thread(name, [core = core_, body = std::move(body)]() mutable {
        body(*core);
        const std::lock_guard count_lock(core->mutex);
        --core->num_running;
        core->ended.notify_all();
      }));
    } catch (...) {
      const std::lock_guard count_lock(core_->mutex);
      --core_->num_running;
      throw;
    }
  };
  core_->started = true;
  try {
    launch("flexkv-load", [](Core& core) { core.loads.run(); });
    launch("flexkv-store", [](Core& core) { core.stores.run(); });
    launch("flexkv-agent", [](Core& core) { core.link.run(); });
  } catch (...) {
    core_->loads.close();  // without the link nothing else ends the lanes
    core_->stores.close();
    throw;
  }
}

bool CopyAgent::stop(double timeout_s) {
  if (!in_owner()) return true;
  const std::lock_guard lock(core_->lifecycle);
  core_->stopped = true;
  const auto deadline = Clock::now() + std::chrono::duration_cast<Clock::duration>(bounded_timeout(timeout_s));
  core_->link.request_stop(deadline);
  {
    // A little longer than the link takes to leave a peer that does not read.
    std::unique_lock count_lock(core_->mutex);
    const auto all_ended = [this] { return core_->num_running == 0; };
    if (!core_->ended.wait_until(count_lock, deadline + std::chrono::milliseconds(100), all_ended)) return false;
  }
  for (std::thread& thread : core_->threads) {
    if (thread.joinable()) thread.join();
  }
  return true;
}

void CopyAgent::record_step(std::uint64_t step, std::uintptr_t stream) {
  if (!in_owner()) return;
  if (stream != 0) core_->backend->record_step(step, stream);
  core_->loads.record_step(step);
  core_->stores.record_step(step);
}

void CopyAgent::expect_load(std::uint64_t ticket, double timeout_s) {
  if (in_owner()) core_->gate.expect(ticket, timeout_s);
}

bool CopyAgent::wait_layer(std::uint64_t ticket, std::uint64_t end_bytes, std::uintptr_t stream) {
  if (!in_owner()) return false;
  const std::optional<CopyMark> mark = core_->gate.wait_part(ticket, end_bytes);
  if (mark && *mark != 0) core_->backend->make_wait(stream, *mark);
  return mark.has_value();
}

bool CopyAgent::finish_load(std::uint64_t ticket) { return in_owner() && core_->gate.finish(ticket); }

void CopyAgent::hold(bool held) {
  if (!in_owner()) return;
  core_->loads.hold(held);
  core_->stores.hold(held);
}

std::shared_ptr<CopyBackend> CopyAgent::backend() const { return in_owner() ? core_->backend : nullptr; }

AgentState CopyAgent::state() const { return in_owner() ? core_->link.state() : AgentState::stopped; }

bool CopyAgent::wait_serving(double timeout_s) const { return in_owner() && core_->link.wait_serving(timeout_s); }

std::string CopyAgent::refusal() const { return in_owner() ? core_->link.refusal() : std::string(); }

std::string CopyAgent::last_error() const {
  if (!in_owner()) return {};
  for (const std::string& error : {core_->loads.last_error(), core_->stores.last_error()}) {
    if (!error.empty()) return error;
  }
  return core_->link.last_error();
}

AgentStats CopyAgent::stats() const {
  AgentStats stats;
  if (!in_owner()) return stats;
  const LaneStats loads = core_->loads.stats();
  const LaneStats stores = core_->stores.stats();
  stats.loads_done = loads.done;
  stats.stores_done = stores.done;
  stats.ops_failed = loads.failed + stores.failed + core_->link.ops_rejected();
  stats.ops_cancelled = loads.cancelled + stores.cancelled;
  stats.bytes_loaded = loads.bytes;
  stats.bytes_stored = stores.bytes;
  stats.load_ns = loads.copy_ns;
  stats.store_ns = stores.copy_ns;
  stats.ops_outstanding = loads.outstanding + stores.outstanding;
  stats.connections = core_->link.connections();
  HostProgress host = core_->link.host();
  stats.registered_bytes = host.registered_bytes;
  stats.unregistered_bytes = host.unregistered_bytes;
  stats.is_registration_complete = host.is_complete;
  stats.registration_error = std::move(host.error);
  stats.is_load_stuck = loads.is_stuck;
  stats.is_store_stuck = stores.is_stuck;
  return stats;
}

}  // namespace flexkv
