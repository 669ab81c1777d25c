// Bindings of the host pool and the transfer engine.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/shared_ptr.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings/array_args.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/store_type.h"
#include "transfer/host_memory.h"
#include "transfer/host_pool.h"
#include "transfer/transfer_engine.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace flexkv {
namespace {

using Ids = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Bytes = nb::ndarray<nb::numpy, std::uint8_t, nb::ndim<1>>;
using Release = nb::call_guard<GilRelease>;
using Pool = DestroyedWithoutGil<HostPool>;

// Waits without the GIL while it is destroyed. What is left to do then is to let go of the pool, a Python object.
class Engine final : public TransferEngine {
 public:
  using TransferEngine::TransferEngine;
  ~Engine() {
    const GilRelease release;
    (void)stop(destructor_timeout_s);
  }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
};

constexpr std::size_t op_tuple_size = 6;     // op_id, type, src, dst, after_step, predecessors; and what is not of all
constexpr std::size_t chain_tuple_size = 6;  // keys, parents, expiry_s, tenant, group, priority

void translate_system_error(const std::exception_ptr& pointer, void* /*payload*/) {
  try {
    std::rethrow_exception(pointer);
  } catch (const std::system_error& error) {
    const nb::tuple arguments = nb::make_tuple(error.code().value(), error.what());
    PyErr_SetObject(PyExc_OSError, arguments.ptr());
  }
}

// Numbers may be of any integral type (enums, numpy scalars); arrays are taken as they are or not at all.
template <typename T>
T take(nb::handle value, const std::string& name, const char* expected) {
  constexpr bool convert = !std::is_same_v<T, Ids>;
  T result{};
  if (!nb::try_cast<T>(value, result, convert)) throw std::invalid_argument(name + " must be " + expected);
  return result;
}

std::vector<std::int64_t> take_ids(nb::handle value, const std::string& name) {
  const Ids ids = take<Ids>(value, name, "a contiguous 1-D int64 array");
  return {ids.data(), ids.data() + ids.shape(0)};
}

template <typename Integer>
Integer take_below(nb::handle value, const std::string& name, std::int64_t end) {
  const auto taken = take<std::int64_t>(value, name, "an int");
  if (taken < 0 || taken >= end) {
    throw std::invalid_argument(name + " is " + std::to_string(taken) + ", must be in [0, " + std::to_string(end) +
                                ")");
  }
  return static_cast<Integer>(taken);
}

std::vector<BlockKey> take_keys(nb::handle value, const std::string& name) {
  const KeysArg keys(value, name.c_str());
  return {keys.span().begin(), keys.span().end()};
}

ChainSpec to_chain(nb::handle item, const std::string& name) {
  if (!nb::isinstance<nb::tuple>(item) || nb::len(item) != chain_tuple_size) {
    throw std::invalid_argument(name + " must be None or a tuple (keys, parents, expiry_s, tenant, group, priority)");
  }
  const auto fields = nb::borrow<nb::tuple>(item);
  ChainSpec chain;
  chain.keys = take_keys(fields[0], name + "[0] (keys)");
  if (!fields[1].is_none()) chain.parents = take_keys(fields[1], name + "[1] (parents)");
  chain.expiry_s = take_below<std::uint32_t>(fields[2], name + "[2] (expiry_s)", std::int64_t{1} << 32);
  chain.tenant = take_below<std::uint16_t>(fields[3], name + "[3] (tenant)", std::int64_t{1} << 16);
  chain.group = take_below<std::uint8_t>(fields[4], name + "[4] (group)", num_groups);
  chain.priority = take_below<std::uint8_t>(fields[5], name + "[5] (priority)", num_chain_priorities);
  return chain;
}

OpSpec to_op(nb::handle item, const std::string& name) {
  const std::size_t size = nb::isinstance<nb::tuple>(item) ? nb::len(item) : 0;
  if (size < op_tuple_size || size > op_tuple_size + 2) {
    throw std::invalid_argument(
        name + " must be a tuple (op_id, type, src, dst, after_step, predecessors[, chain[, layer_ticket]])");
  }
  const auto fields = nb::borrow<nb::tuple>(item);
  OpSpec op;
  op.op_id = take<std::int64_t>(fields[0], name + "[0] (op_id)", "an int");
  const auto type = take<std::int64_t>(fields[1], name + "[1] (type)", "an OpType");
  if (type < 0 || type > static_cast<std::int64_t>(OpType::virtual_op)) {
    throw std::invalid_argument(name + "[1] (type) is " + std::to_string(type) + ", not an OpType");
  }
  op.type = static_cast<OpType>(type);
  op.src = take_ids(fields[2], name + "[2] (src)");
  op.dst = take_ids(fields[3], name + "[3] (dst)");
  op.after_step = take<std::uint64_t>(fields[4], name + "[4] (after_step)", "a non-negative int");
  op.predecessors = take<std::vector<std::int64_t>>(fields[5], name + "[5] (predecessors)", "a list of int");
  if (size > op_tuple_size && !fields[op_tuple_size].is_none()) {
    op.chain = to_chain(fields[op_tuple_size], name + "[6] (chain)");
  }
  if (size > op_tuple_size + 1) {
    op.layer_ticket = take<std::uint64_t>(fields[op_tuple_size + 1], name + "[7] (layer_ticket)", "a non-negative int");
  }
  return op;
}

void submit(Engine& engine, std::int64_t graph_id, const nb::sequence& ops, double timeout_s) {
  GraphSpec graph;
  graph.graph_id = graph_id;
  graph.timeout_s = timeout_s;
  graph.ops.reserve(nb::len(ops));
  for (std::size_t i = 0; i < nb::len(ops); ++i) graph.ops.push_back(to_op(ops[i], "ops[" + std::to_string(i) + "]"));
  const GilRelease release;
  engine.submit(std::move(graph));
}

nb::list poll(Engine& engine, std::size_t max) {
  std::vector<Completion> completions;
  {
    const GilRelease release;
    completions = engine.poll(max);
  }
  nb::list list;
  for (Completion& completion : completions) list.append(nb::cast(std::move(completion)));
  return list;
}

Bytes view(const nb::object& self, int shard, std::int64_t slot) {
  const auto& pool = nb::cast<const Pool&>(self);
  if (slot < 0 || slot >= pool.num_slots()) {
    throw std::invalid_argument("slot " + std::to_string(slot) + " is out of range [0, " +
                                std::to_string(pool.num_slots()) + ")");
  }
  std::byte* begin = pool.base(shard) + static_cast<std::uint64_t>(slot) * pool.stride_bytes(shard);
  return Bytes(begin, {static_cast<std::size_t>(pool.slot_bytes(shard))}, self);
}

// How the signature of submit names an op.
#define CHAIN_TUPLE "tuple[NDArray[numpy.uint8], NDArray[numpy.uint8] | None, int, int, int, int]"
#define OP_FIELDS "int, int, NDArray[numpy.int64], NDArray[numpy.int64], int, list[int]"
#define OP_TUPLE                                                                                            \
  "tuple[" OP_FIELDS "] | tuple[" OP_FIELDS ", " CHAIN_TUPLE " | None] | tuple[" OP_FIELDS ", " CHAIN_TUPLE \
  " | None, int]"

void bind_values(nb::module_& m) {
  nb::enum_<OpType>(m, "OpType", nb::is_arithmetic(), "The route of an op.")
      .value("H2D", OpType::h2d)
      .value("D2H", OpType::d2h)
      .value("DISK2H", OpType::disk2h)
      .value("H2DISK", OpType::h2disk)
      .value("REMOTE2H", OpType::remote2h)
      .value("H2REMOTE", OpType::h2remote)
      .value("VIRTUAL", OpType::virtual_op);
  nb::enum_<OpStatus>(m, "OpStatus", nb::is_arithmetic(),
                      "WAITING -> RUNNING -> DONE | FAILED | TIMED_OUT | CANCELLED; WAITING -> CANCELLED.")
      .value("WAITING", OpStatus::waiting)
      .value("RUNNING", OpStatus::running)
      .value("DONE", OpStatus::done)
      .value("FAILED", OpStatus::failed)
      .value("TIMED_OUT", OpStatus::timed_out)
      .value("CANCELLED", OpStatus::cancelled);
  nb::enum_<CompletionKind>(m, "CompletionKind", nb::is_arithmetic(), "What a completion is about.")
      .value("OP", CompletionKind::op)
      .value("GRAPH_STATUS", CompletionKind::graph_status)
      .value("GRAPH_RELEASED", CompletionKind::graph_released);
  nb::class_<Completion>(m, "Completion", "One op or graph that has come to its end; a value.")
      .def_ro("kind", &Completion::kind)
      .def_ro("type", &Completion::type, "Of kind OP: its route; else VIRTUAL.")
      .def_ro("num_blocks", &Completion::num_blocks,
              "Of kind OP: blocks it was to move, whether it did or not; else 0.")
      .def_ro("graph_id", &Completion::graph_id)
      .def_ro("op_id", &Completion::op_id, "Of kind OP; else -1.")
      .def_ro("status", &Completion::status)
      .def_ro("bytes", &Completion::bytes, "Of kind OP: moved, over all ranks.")
      .def_ro("seconds", &Completion::seconds, "Of kind OP: the slowest rank's copy time, or the disk's.")
      .def_ro("error", &Completion::error, "What went wrong and where; empty when DONE.")
      .def_ro("failed_blocks", &Completion::failed_blocks,
              "Of a disk op that ran and is not DONE: positions of the blocks that were not moved well, ascending.")
      .def_ro("num_bad_checksums", &Completion::num_bad_checksums, "Of a disk op: blocks whose bytes were not theirs.")
      .def_ro("queued_seconds", &Completion::queued_seconds, "Of a disk op: how long its first block waited.")
      .def_ro("io_errno", &Completion::io_errno, "Of a disk op: errno of the first block that met one; 0: none.");
  nb::class_<RankInfo>(m, "RankInfo", "What a rank has registered, and whether it is there; a value.")
      .def_ro("rank", &RankInfo::rank)
      .def_ro("pid", &RankInfo::pid)
      .def_ro("num_blocks", &RankInfo::num_blocks)
      .def_ro("slot_bytes", &RankInfo::slot_bytes)
      .def_ro("tokens_per_block", &RankInfo::tokens_per_block)
      .def_ro("layout_tag", &RankInfo::layout_tag)
      .def_ro("connected", &RankInfo::connected)
      .def_ro("slots_mapped", &RankInfo::slots_mapped);
}

void bind_host_pool(nb::module_& m) {
  nb::class_<Pool>(m, "HostPool", "The host tier's bytes: one sealed memfd per shard; see csrc/transfer/host_pool.h.")
      .def(
          "__init__",
          [](Pool* self, std::int64_t num_slots, std::vector<std::uint64_t> slot_bytes, int prefault_threads,
             bool use_hugetlb) {
            const HostPoolConfig config = {num_slots, std::move(slot_bytes), prefault_threads, use_hugetlb};
            const GilRelease release;
            new (self) Pool(config);
          },
          "num_slots"_a, "slot_bytes"_a, "prefault_threads"_a = 2, "use_hugetlb"_a = true,
          "Reserve num_slots slots in each shard and prefault them in the background. OSError when memory is short.")
      .def_prop_ro("num_slots", &HostPool::num_slots)
      .def_prop_ro("num_shards", &HostPool::num_shards)
      .def_prop_ro("generation", &HostPool::generation, "Random; new for every pool.")
      .def_prop_ro("page_kind", &HostPool::page_kind, "'hugetlb', 'thp' or '4k'.")
      .def_prop_ro("slots_prefaulted", &HostPool::slots_prefaulted)
      .def_prop_ro("prefault_error", &HostPool::prefault_error, "errno that ended prefaulting early; 0: none.")
      .def("slot_bytes", &HostPool::slot_bytes, "shard"_a)
      .def("stride_bytes", &HostPool::stride_bytes, "shard"_a)
      .def("fd", &HostPool::fd, "shard"_a, "The shard's memfd; the pool owns it.")
      .def(
          "wait_prefaulted",
          [](const Pool& self, std::int64_t slots, double timeout_s) {
            return wait_interruptibly(timeout_s, [&](double slice_s) { return self.wait_prefaulted(slots, slice_s); });
          },
          "slots"_a, "timeout_s"_a, "Wait until that many slots are prefaulted; False after the timeout.")
      .def("view", &view, "shard"_a, "slot"_a, nb::rv_policy::reference,
           "The slot's bytes as a writable uint8 array that keeps the pool alive (tests, checksums).");
  m.def("slot_stride_bytes", &slot_stride_bytes, "slot_bytes"_a,
        "Bytes from a slot to the next: slot_bytes padded to 4 KiB.");
  m.def(
      "memory_headroom", [] { return memory_headroom().available_bytes; },
      "Bytes this process can still take: the least of MemAvailable and what its control groups have left.");
}

}  // namespace

void bind_transfer(nb::module_& m) {
  nb::register_exception_translator(translate_system_error);
  bind_values(m);
  bind_host_pool(m);
  nb::class_<Engine>(m, "TransferEngine", "Runs graphs of transfer ops; see csrc/transfer/transfer_engine.h.")
      .def(
          "__init__",
          [](Engine* self, std::string socket_path, std::uint32_t num_ranks, std::size_t max_graphs,
             std::uint32_t replicas) {
            new (self) Engine(TransferEngineConfig{std::move(socket_path), num_ranks, max_graphs, replicas});
          },
          "socket_path"_a, "num_ranks"_a = 1, "max_graphs"_a = 65536, "replicas"_a = 1,
          "Each `replicas` ranks, one after the other, hold the same bytes and share a shard of the pool.")
      .def("start", &TransferEngine::start, Release(), "Listen for copy agents; once. OSError when the path is taken.")
      .def("stop", &TransferEngine::stop, "timeout_s"_a, Release(),
           "Cancel what waits, drain what runs, disconnect. False when an op is still in an agent's hands. Idempotent.")
      .def("ranks", &TransferEngine::ranks, "Ranks that have ever registered.")
      .def(
          "wait_ranks",
          [](const Engine& self, double timeout_s) {
            return wait_interruptibly(timeout_s, [&](double slice_s) { return self.wait_ranks(slice_s); });
          },
          "timeout_s"_a, "Wait until every rank has registered; False after the timeout.")
      .def_prop_ro("num_device_blocks", &TransferEngine::num_device_blocks,
                   "Device blocks that every rank has, as registered last; 0 before all have.")
      .def(
          "set_pool", [](Engine& self, std::shared_ptr<Pool> pool) { self.set_pool(std::move(pool)); }, "pool"_a,
          "Give the pool, of one shard for each group of replicas, to the agents; once, after all ranks registered.")
      .def(
          "set_disk",
          [](Engine& self, std::shared_ptr<Store> store) {
            const GilRelease release;
            self.set_disk(std::move(store));
          },
          "store"_a,
          "Start an SsdStore and hand it disk ops from now on; after set_pool. Another may follow when the former was "
          "stopped.")
      .def_prop_ro("slots_available", &TransferEngine::slots_available, "Slots that may be handed out; never shrinks.")
      .def(
          "wait_slots",
          [](const Engine& self, std::int64_t slots, double timeout_s) {
            return wait_interruptibly(timeout_s, [&](double slice_s) { return self.wait_slots(slots, slice_s); });
          },
          "slots"_a, "timeout_s"_a, "Wait until slots_available >= slots; False after the timeout.")
      .def(
          "submit", &submit, "graph_id"_a, "ops"_a, "timeout_s"_a,
          nb::sig("def submit(self, graph_id: int, ops: collections.abc.Sequence[" OP_TUPLE
                  "], timeout_s: float) -> None"),
          "Submit a graph: a list of (op_id, type, src, dst, after_step, predecessors), and of disk ops a seventh, the "
          "chain: (keys, parents, expiry_s, tenant, group, priority), parents None for DISK2H; of a load by layers an "
          "eighth, its layer ticket. ValueError or RuntimeError: nothing was submitted.")
      .def("cancel", &TransferEngine::cancel, "graph_id"_a, Release(),
           "Cancel what no agent has started; an unknown graph is ignored.")
      .def(
          "lose_load", &TransferEngine::lose_load, "layer_ticket"_a, Release(),
          "Tell the workers that no load by layers comes with this ticket. Of graphs that were submitted they are told "
          "without it. ValueError for 0.")
      .def("poll", &poll, "max"_a = 4096, nb::sig("def poll(self, max: int = 4096) -> list[Completion]"),
           "Take the completions that wait, at most `max`.")
      .def(
          "wait",
          [](Engine& self, double timeout_s) {
            return wait_interruptibly(timeout_s, [&](double slice_s) { return self.wait(slice_s); });
          },
          "timeout_s"_a, "Wait until poll would return something; False after the timeout or when stopped.")
      .def_prop_ro("event_fd", &TransferEngine::event_fd, "Readable while completions wait; owned by the engine.")
      .def_prop_ro("num_graphs", &TransferEngine::num_graphs, "Graphs held: not yet released.")
      .def_prop_ro("protocol_errors", &TransferEngine::protocol_errors, "Peers disconnected or turned away.")
      .def_prop_ro("last_protocol_error", &TransferEngine::last_protocol_error);
}

}  // namespace flexkv
