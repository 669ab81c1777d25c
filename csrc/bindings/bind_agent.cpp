// Bindings of the copy agent and the copy engine. Addresses and planes come in as numbers: whoever holds the tensors
// (flexkv/server/client.py) keeps them alive.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <span>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/bindings.h"
#include "bindings/copy_tuning.h"
#include "bindings/gil.h"
#include "cuda/gpu_backend.h"
#include "cuda/gpu_copier.h"
#include "transfer/copy_agent.h"
#include "transfer/copy_engine.h"
#include "transfer/device_layout.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace flexkv {
namespace {

using Planes = nb::ndarray<const std::uint64_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Agent = DestroyedWithoutGil<CopyAgent>;
using Ids = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;

DeviceLayout to_layout(std::uint64_t num_blocks, const Planes& planes) {
  DeviceLayout layout;
  layout.num_blocks = num_blocks;
  for (std::size_t i = 0; i < planes.shape(0); ++i) {
    const std::uint64_t* row = planes.data() + 3 * i;
    layout.planes.push_back({row[0], row[1], row[2]});
  }
  return layout;
}

std::span<const std::int64_t> to_ids(const Ids& ids, const char* name, std::int64_t end) {
  const std::span<const std::int64_t> span(ids.data(), ids.shape(0));
  const auto bad = std::ranges::find_if(span, [end](std::int64_t id) { return id < 0 || id >= end; });
  if (bad != span.end()) {
    throw std::invalid_argument(std::string(name) + "[" + std::to_string(bad - span.begin()) + "] is " +
                                std::to_string(*bad) + ", not in [0, " + std::to_string(end) + ")");
  }
  return span;
}

std::uint64_t copy_blocks(CopyEngine& engine, const Planes& planes, std::uint64_t num_blocks, std::uintptr_t host_base,
                          std::uint64_t stride, std::int64_t num_slots, int direction, const Ids& slots,
                          const Ids& blocks) {
  const DeviceLayout layout = to_layout(num_blocks, planes);
  layout.validate();
  if (host_base == 0) throw std::invalid_argument("host_base is 0");
  if (stride < layout.slot_bytes()) throw std::invalid_argument("stride is smaller than the bytes of a block");
  if (num_slots < 1) throw std::invalid_argument("num_slots must be positive");
  if (direction != 0 && direction != 1) throw std::invalid_argument("direction must be 0 (load) or 1 (store)");
  if (slots.shape(0) != blocks.shape(0)) throw std::invalid_argument("slots and blocks differ in length");
  const auto slot_ids = to_ids(slots, "slots", num_slots);
  const auto block_ids = to_ids(blocks, "blocks", static_cast<std::int64_t>(num_blocks));
  const HostShard shard = {reinterpret_cast<std::byte*>(host_base), stride, num_slots};
  const GilRelease release;
  return engine.copy(layout, shard, static_cast<protocol::Direction>(direction), slot_ids, block_ids);
}

void copy_range(std::uintptr_t dst, std::uintptr_t src, std::size_t bytes) {
  const GilRelease release;
  copy_nontemporal(reinterpret_cast<std::byte*>(dst), reinterpret_cast<const std::byte*>(src), bytes);
}

// What moves the blocks of tensors on that kind of device.
std::shared_ptr<CopyBackend> backend_for(const std::string& device, const DeviceLayout& layout) {
  if (device == "cpu") return nullptr;
  if (device != "cuda") throw std::invalid_argument("device is '" + device + "'; 'cpu' and 'cuda' are known");
  layout.validate();
  std::string why_not;
  const cuda::Api* const api = cuda::driver(why_not);
  if (api == nullptr) throw std::runtime_error(why_not);
  return std::make_shared<cuda::GpuBackend>(*api, layout);
}

// Both directions of a backend without an agent: for benchmarks and tests.
class BlockCopies {
 public:
  BlockCopies(const std::string& device, std::uint64_t num_blocks, const Planes& planes, std::uintptr_t host_base,
              std::uint64_t stride, std::int64_t num_slots)
      : layout_(to_layout(num_blocks, planes)), host_{reinterpret_cast<std::byte*>(host_base), stride, num_slots} {
    if (host_base == 0) throw std::invalid_argument("host_base is 0");
    if (stride < layout_.slot_bytes()) throw std::invalid_argument("stride is smaller than the bytes of a block");
    if (num_slots < 1) throw std::invalid_argument("num_slots must be positive");
    const GilRelease release;
    layout_.validate();
    backend_ = backend_for(device, layout_);
    if (backend_ == nullptr) backend_ = std::make_shared<CpuBackend>(layout_, 1);
    for (const auto direction : {protocol::Direction::load, protocol::Direction::store}) {
      copiers_.push_back(backend_->make_copier(direction));
    }
    registration_ = backend_->use_host(host_, [this](const HostProgress& progress) {
      const std::lock_guard lock(mutex_);
      usable_ = progress.num_slots;
      changed_.notify_all();
    });
  }

  bool wait_usable(double timeout_s) {
    const GilRelease release;
    std::unique_lock lock(mutex_);
    const auto limit = std::chrono::duration<double>(std::clamp(timeout_s, 0.0, 3600.0));
    return changed_.wait_for(lock, limit, [this] { return usable_ == host_.num_slots; });
  }

  void release_host() {
    if (registration_ == nullptr) return;
    const GilRelease release;
    registration_->let_go_gently({});
    registration_.reset();
  }

  std::uint64_t copy(int direction, const Ids& slots, const Ids& blocks, std::uint64_t after_step) {
    if (direction != 0 && direction != 1) throw std::invalid_argument("direction must be 0 (load) or 1 (store)");
    if (slots.shape(0) != blocks.shape(0)) throw std::invalid_argument("slots and blocks differ in length");
    const auto slot_ids = to_ids(slots, "slots", host_.num_slots);
    const auto block_ids = to_ids(blocks, "blocks", static_cast<std::int64_t>(layout_.num_blocks));
    const GilRelease release;
    return copiers_[static_cast<std::size_t>(direction)]->copy(host_, slot_ids, block_ids, after_step);
  }

  void record_step(std::uint64_t step, std::uintptr_t stream) {
    const GilRelease release;
    backend_->record_step(step, stream);
  }

  bool wait_tuned(double timeout_s) {
    const auto gpu = gpu_backend(backend_);
    const GilRelease release;
    return gpu == nullptr || gpu->choices().wait_settled(timeout_s);
  }

  nb::dict tuning() { return tuning_of(gpu_backend(backend_).get()); }

  void use_mechanism(const std::string& name) {
    const auto gpu = gpu_backend(backend_);
    if (gpu == nullptr) throw std::invalid_argument("a CPU has one mechanism only");
    gpu->choices().force(mechanism_named(name));
  }

  std::string mechanism_for(int direction, const Ids& slots) {
    if (direction != 0 && direction != 1) throw std::invalid_argument("direction must be 0 (load) or 1 (store)");
    const auto slot_ids = to_ids(slots, "slots", host_.num_slots);
    if (slot_ids.empty() || gpu_backend(backend_) == nullptr) return {};
    const auto& copier = dynamic_cast<const cuda::GpuCopier&>(*copiers_[static_cast<std::size_t>(direction)]);
    const GilRelease release;
    return std::string(cuda::mechanism_names[static_cast<std::size_t>(copier.mechanism_for(host_, slot_ids))]);
  }

 private:
  const DeviceLayout layout_;
  const HostShard host_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::int64_t usable_ = 0;  // guarded by mutex_
  std::shared_ptr<CopyBackend> backend_;
  std::vector<std::unique_ptr<BlockCopier>> copiers_;
  std::unique_ptr<HostRegistration> registration_;
};

using Copies = DestroyedWithoutGil<BlockCopies>;

nb::dict to_dict(const AgentStats& stats) {
  nb::dict dict;
  dict["loads_done"] = stats.loads_done;
  dict["stores_done"] = stats.stores_done;
  dict["ops_failed"] = stats.ops_failed;
  dict["ops_cancelled"] = stats.ops_cancelled;
  dict["bytes_loaded"] = stats.bytes_loaded;
  dict["bytes_stored"] = stats.bytes_stored;
  dict["load_ns"] = stats.load_ns;
  dict["store_ns"] = stats.store_ns;
  dict["ops_outstanding"] = stats.ops_outstanding;
  dict["connections"] = stats.connections;
  dict["registered_bytes"] = stats.registered_bytes;
  dict["unregistered_bytes"] = stats.unregistered_bytes;
  dict["is_registration_complete"] = stats.is_registration_complete;
  dict["registration_error"] = stats.registration_error;
  dict["is_load_stuck"] = stats.is_load_stuck;
  dict["is_store_stuck"] = stats.is_store_stuck;
  return dict;
}

void bind_agent_tuning(nb::class_<Agent>& agent) {
  agent
      .def(
          "give_copy_figures",
          [](const Agent& self, const CopyFiguresArray& us) {
            const auto gpu = gpu_backend(self.backend());
            return gpu != nullptr && gpu->choices().give(to_figures(us));
          },
          "us"_a.noconvert(),
          "Use figures of an earlier measurement: microseconds, one row for each of tuning()['cells'], in order of "
          "tuning()['mechanisms']; 0: not measured. Before start. False without a GPU, or when there are some already.")
      .def(
          "wait_tuned",
          [](const Agent& self, double timeout_s) {
            const auto gpu = gpu_backend(self.backend());
            const GilRelease release;
            return gpu == nullptr || gpu->choices().wait_settled(timeout_s);
          },
          "timeout_s"_a, "Wait until the mechanisms are measured, given, or will not be; False after the timeout.")
      .def(
          "tuning", [](const Agent& self) { return tuning_of(gpu_backend(self.backend()).get()); },
          "Which mechanism copies what, and the figures for it; see csrc/bindings/copy_tuning.h. Empty without a GPU.");
}

void bind_copy_agent(nb::module_& m) {
  using Release = nb::call_guard<GilRelease>;
  nb::enum_<AgentState>(m, "AgentState",
                        "Where a copy agent is: IDLE, CONNECTING, REGISTERED, SERVING, REFUSED, STOPPED.")
      .value("IDLE", AgentState::idle)
      .value("CONNECTING", AgentState::connecting)
      .value("REGISTERED", AgentState::registered)
      .value("SERVING", AgentState::serving)
      .value("REFUSED", AgentState::refused)
      .value("STOPPED", AgentState::stopped);

  nb::class_<Agent> agent(m, "CopyAgent",
                          "Native threads that move one rank's blocks; see csrc/transfer/copy_agent.h.");
  agent
      .def(
          "__init__",
          [](Agent* self, std::string socket_path, std::uint32_t rank, std::uint32_t num_ranks,
             std::uint32_t tokens_per_block, std::string layout_tag, int copy_threads, std::uint64_t num_blocks,
             const Planes& planes, const std::string& device, std::vector<std::uint64_t> layer_ends) {
            AgentConfig config = {std::move(socket_path), rank,        num_ranks, tokens_per_block,
                                  std::move(layout_tag),  copy_threads};
            DeviceLayout layout = to_layout(num_blocks, planes);
            layout.layer_ends = std::move(layer_ends);
            const GilRelease release;
            layout.validate();
            auto backend = backend_for(device, layout);
            new (self) Agent(std::move(config), std::move(layout), std::move(backend));
          },
          "socket_path"_a, "rank"_a, "num_ranks"_a, "tokens_per_block"_a, "layout_tag"_a, "copy_threads"_a,
          "num_blocks"_a, "planes"_a.noconvert(), "device"_a = "cpu", "layer_ends"_a = std::vector<std::uint64_t>(),
          "Describe the rank. planes: uint64[p, 3] of base address, block stride and chunk length in bytes. device: "
          "'cpu' or 'cuda'. layer_ends: where in a block's bytes the layers end, ascending. RuntimeError: the device "
          "cannot be used, and why. MemoryError: it has no memory left.")
      .def("start", &CopyAgent::start, Release(), "Connect in the background and serve; returns at once. Once only.")
      .def("stop", &CopyAgent::stop, "timeout_s"_a, Release(),
           "Drain running ops, cancel queued ones, say goodbye. False when a copy did not end in time. Idempotent.")
      .def("record_step", &CopyAgent::record_step, "step"_a, "stream"_a = 0, Release(),
           "The engine's step `step` is computed, or on its way in `stream` (a CUDA stream's address): ops with "
           "after_step <= step may run, after that. Steps not beyond the last one are ignored. RuntimeError.")
      .def("expect_load", &CopyAgent::expect_load, "ticket"_a, "timeout_s"_a, Release(),
           "The step that begins computes on what the load with this layer ticket brings, at the latest so long after "
           "now. ValueError unless tickets grow, or when 16 are expected and not finished.")
      .def("wait_layer", &CopyAgent::wait_layer, "ticket"_a, "end_bytes"_a, "stream"_a = 0, Release(),
           "Have the stream (a CUDA stream's address; 0: this thread) wait until the first `end_bytes` bytes of the "
           "load's blocks are there. False: the load failed. ValueError, RuntimeError.")
      .def("finish_load", &CopyAgent::finish_load, "ticket"_a, Release(),
           "Wait until the load has ended: whether all of it is there. ValueError, RuntimeError.")
      .def("hold", &CopyAgent::hold, "held"_a, Release(), "While held no op starts (for tests).")
      .def(
          "wait_serving",
          [](const Agent& self, double timeout_s) {
            return wait_interruptibly(timeout_s, [&self](double slice_s) { return self.wait_serving(slice_s); });
          },
          "timeout_s"_a, "Wait until ops are served; False after the timeout, or when refused or stopped.")
      .def_prop_ro("state", &CopyAgent::state)
      .def_prop_ro("refusal", &CopyAgent::refusal, "The engine's reason, when refused.")
      .def_prop_ro("last_error", &CopyAgent::last_error,
                   "Why a copy failed, or else the last connection; empty when none has.")
      .def("stats", [](const Agent& self) { return to_dict(self.stats()); }, "Counters since start.");
  bind_agent_tuning(agent);
}

}  // namespace

void bind_agent(nb::module_& m) {
  nb::register_exception_translator([](const std::exception_ptr& thrown, void* /*unused*/) {
    try {
      std::rethrow_exception(thrown);
    } catch (const cuda::Error& error) {
      PyErr_SetString(error.code() == cuda::error_out_of_memory ? PyExc_MemoryError : PyExc_RuntimeError, error.what());
    }
  });
  bind_copy_agent(m);
  nb::class_<CopyEngine>(m, "CopyEngine", "Moves blocks between device planes and host slots with CPU threads.")
      .def(nb::init<int>(), "num_threads"_a)
      .def("copy", &copy_blocks, "planes"_a.noconvert(), "num_blocks"_a, "host_base"_a, "stride"_a, "num_slots"_a,
           "direction"_a, "slots"_a.noconvert(), "blocks"_a.noconvert(),
           "Copy slots[i] to blocks[i] (direction 0) or back (1); returns the bytes moved. One call at a time.");
  nb::class_<Copies>(m, "BlockCopies",
                     "Moves blocks between a device and host slots as an agent does, without one: for benchmarks and "
                     "tests. The memory must stay while it lives.")
      .def(nb::init<const std::string&, std::uint64_t, const Planes&, std::uintptr_t, std::uint64_t, std::int64_t>(),
           "device"_a, "num_blocks"_a, "planes"_a.noconvert(), "host_base"_a, "stride"_a, "num_slots"_a,
           "device: 'cpu' or 'cuda'. RuntimeError: the device cannot be used, and why. MemoryError: it has no memory "
           "left.")
      .def("wait_usable", &BlockCopies::wait_usable, "timeout_s"_a,
           "Wait until the device may use all host slots; False after the timeout.")
      .def("release_host", &BlockCopies::release_host,
           "Let the device forget the host slots, as when the connection to a manager is lost: slowly while the engine "
           "works. Nothing may be copied any more.")
      .def("copy", &BlockCopies::copy, "direction"_a, "slots"_a.noconvert(), "blocks"_a.noconvert(), "after_step"_a = 0,
           "Copy slots[i] to blocks[i] (direction 0) or back (1), once the work of `after_step` is done; returns the "
           "bytes moved. One call at a time for each direction. RuntimeError: the device failed.")
      .def("record_step", &BlockCopies::record_step, "step"_a, "stream"_a,
           "What the stream holds now belongs to steps up to this one; ignored unless it is beyond the last one.")
      .def("wait_tuned", &BlockCopies::wait_tuned, "timeout_s"_a,
           "Wait until the mechanisms are measured, or will not be; False after the timeout.")
      .def("tuning", &BlockCopies::tuning, "As CopyAgent.tuning.")
      .def("use_mechanism", &BlockCopies::use_mechanism, "name"_a,
           "Use this one from now on, wherever it can be; nothing is measured any more.")
      .def("mechanism_for", &BlockCopies::mechanism_for, "direction"_a, "slots"_a.noconvert(),
           "The name of what a copy of these slots would use now; empty without a GPU.");
  m.def("copy_nontemporal", &copy_range, "dst"_a, "src"_a, "bytes"_a,
        "Copy one range between two addresses with stores that bypass the caches (for benchmarks).");
}

}  // namespace flexkv
