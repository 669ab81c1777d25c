// CopyAgent: the native threads inside a GPU worker process that move this rank's blocks (D1).
//
// `start` returns at once; an I/O thread connects to the TransferEngine's socket in the background (the engine may not
// exist yet: it retries, first after 10 ms, then at most every 500 ms, until `stop`), registers, maps the pool (or
// shares the engine's mapping when both are one process), and serves ops. When the connection is lost it starts over,
// unless stopped or refused. Loads and stores have a thread and a queue each, so that loads never wait behind stores.
//
// Step tickets (D17): an op with after_step = n starts once record_step(m >= n) was called by the worker; on a GPU its
// copies also wait, on the device, for what the engine's stream held then.
// An op runs whole; CANCEL only takes ops that have not started. Every OP gets exactly one ACK (ids out of range, a
// lost pool, ...: AckStatus::failed). After a lost connection running copies finish before the mapping is dropped and
// before the agent registers again.
//
// A load by layers (OpBody::layer_ticket) is waited for by the engine's own thread: expect_load when its step begins,
// wait_layer before each layer, finish_load at the end of the step. Each returns in bounded time.
//
// A copy that does not end is not acknowledged, whatever it takes: what it may still write to is not to be used again
// (D16). After `stuck_after_s` the stats say so; whoever asked for the op has a bound of its own.
//
// `stop` drains running ops, acknowledges the queued ones as cancelled, says BYE, joins all threads; bounded by
// timeout_s, idempotent. The device memory must stay valid until stop() has returned true.
//
// Thread safety: all public members, any thread. Holds no GIL, calls no Python. In a forked child the object is inert:
// it has no threads, its state is stopped, and all verbs do nothing.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "transfer/block_copier.h"
#include "transfer/device_layout.h"

namespace flexkv {

// registered: REGISTER is sent, no pool has come yet.
enum class AgentState : std::uint8_t { idle, connecting, registered, serving, refused, stopped };

struct AgentConfig {
  std::string socket_path;
  std::uint32_t rank = 0;
  std::uint32_t num_ranks = 1;
  std::uint32_t tokens_per_block = 0;
  std::string layout_tag;
  int copy_threads = 1;         // per direction
  double stuck_after_s = 10.0;  // a copy that runs for longer shows in the stats
};

struct AgentStats {
  std::uint64_t loads_done = 0, stores_done = 0, ops_failed = 0, ops_cancelled = 0;
  std::uint64_t bytes_loaded = 0, bytes_stored = 0;
  std::uint64_t load_ns = 0, store_ns = 0;
  std::uint64_t ops_outstanding = 0;  // received, not acknowledged
  std::uint64_t connections = 0;
  std::uint64_t registered_bytes = 0, unregistered_bytes = 0;  // of the pool, with the device; see HostProgress
  bool is_registration_complete = false;
  std::string registration_error;
  bool is_load_stuck = false, is_store_stuck = false;  // a copy does not end, or the step before it
};

class CopyAgent {
 public:
  // Validates config and layout: throws std::invalid_argument. Without a backend the memory is the host's own.
  CopyAgent(AgentConfig config, DeviceLayout layout, std::shared_ptr<CopyBackend> backend = nullptr);
  ~CopyAgent();  // stop(5 s)
  CopyAgent(const CopyAgent&) = delete;
  CopyAgent& operator=(const CopyAgent&) = delete;

  void start();  // once; throws std::logic_error when started or stopped before
  // False when a copy did not end in time: the threads then end by themselves, and stop may be called again.
  [[nodiscard]] bool stop(double timeout_s);
  // Steps that are not beyond the last one are ignored. `stream`: on a GPU, the engine's, which holds the work of the
  // step; 0: it is done. Throws what the backend does.
  void record_step(std::uint64_t step, std::uintptr_t stream = 0);
  // The step that runs now computes on what the load with this ticket brings. Tickets grow. Throws
  // std::invalid_argument.
  void expect_load(std::uint64_t ticket, double timeout_s);
  // Has `stream` (a CUstream; 0 where there are none: the thread itself) wait until bytes [0, end_bytes) of the load's
  // blocks are there; returns once that is on its way. False: the load failed. Throws std::invalid_argument for a
  // ticket that is not expected, std::runtime_error when the load does not end, or the device fails.
  [[nodiscard]] bool wait_layer(std::uint64_t ticket, std::uint64_t end_bytes, std::uintptr_t stream);
  // Until the load has ended: whether all of it is there. Throws as wait_layer.
  [[nodiscard]] bool finish_load(std::uint64_t ticket);
  [[nodiscard]] AgentState state() const;
  // Until the agent serves ops; false after timeout_s, or when refused or stopped.
  [[nodiscard]] bool wait_serving(double timeout_s) const;
  [[nodiscard]] std::string refusal() const;  // reason, when refused
  // Why a copy failed, or else the last connection, for a log line; empty when none has.
  [[nodiscard]] std::string last_error() const;
  [[nodiscard]] AgentStats stats() const;
  // What moves the blocks; nullptr in a forked child.
  [[nodiscard]] std::shared_ptr<CopyBackend> backend() const;
  // For tests of fences and quarantine: while held, no op starts (those running run on).
  void hold(bool held);

 private:
  struct Core;
  [[nodiscard]] bool in_owner() const;

  std::shared_ptr<Core> core_;  // the threads share it: they may outlive a stop that ran out of time
};

}  // namespace flexkv
