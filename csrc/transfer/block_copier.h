// BlockCopier and CopyBackend: what moves an op's blocks between a rank's device memory and the host pool. On a CPU
// that is CopyEngine, on a GPU csrc/cuda/gpu_backend.h; the agent knows neither.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <span>
#include <stop_token>
#include <string>

#include "transfer/device_layout.h"
#include "transfer/protocol.h"

namespace flexkv {

// One rank's shard of the host pool as mapped in this process.
struct HostShard {
  std::byte* base = nullptr;
  std::uint64_t stride_bytes = 0;
  std::int64_t num_slots = 0;
};

// What a stream of the device waits for so that a part of a load is there: the backend's own; 0: it is there already.
using CopyMark = std::uintptr_t;

// Is told how far a load by layers has come. Thread safety: the copier's thread.
class PartSink {
 public:
  PartSink() = default;
  virtual ~PartSink() = default;
  PartSink(const PartSink&) = delete;
  PartSink& operator=(const PartSink&) = delete;
  // Bytes [0, end_bytes) of every block are there, or will be once `mark` is reached: all that leads there is on its
  // way. The mark stays what it is until the second next load by layers begins.
  virtual void part_issued(std::uint64_t end_bytes, CopyMark mark) = 0;
};

// One direction of an agent. Thread safety: one call at a time.
class BlockCopier {
 public:
  BlockCopier() = default;
  virtual ~BlockCopier() = default;
  BlockCopier(const BlockCopier&) = delete;
  BlockCopier& operator=(const BlockCopier&) = delete;

  // Copies, and returns once all bytes are there: the bytes moved. Work of the engine that was recorded up to
  // `after_step` comes first. REQUIRES: slots.size() == blocks.size(), ids in range (the agent checks), and no
  // destination named twice: it would get a mixture. Throws std::bad_alloc, std::runtime_error.
  virtual std::uint64_t copy(const HostShard& host, std::span<const std::int64_t> slots,
                             std::span<const std::int64_t> blocks, std::uint64_t after_step) = 0;

  // The same of a load, part by part in the order of a slot, so that the layers of all blocks come one after the other.
  // Here, and where that brings nothing, in one part.
  virtual std::uint64_t copy_in_parts(const HostShard& host, std::span<const std::int64_t> slots,
                                      std::span<const std::int64_t> blocks, std::uint64_t after_step, PartSink& sink) {
    const std::uint64_t bytes = copy(host, slots, blocks, after_step);
    sink.part_issued(std::numeric_limits<std::uint64_t>::max(), 0);
    return bytes;
  }
};

// How far a shard's memory is usable, and what the device took of it.
struct HostProgress {
  std::int64_t num_slots = 0;            // may be used, from 0 on; grows
  bool is_complete = false;              // nothing more is said
  std::uint64_t registered_bytes = 0;    // with the device's driver, so that it reaches them at full speed
  std::uint64_t unregistered_bytes = 0;  // it refused these: usable, but slower
  std::string error;                     // what it said of the first of them
};

// Host memory that a device may use, for as long as this lives.
class HostRegistration {
 public:
  HostRegistration() = default;
  virtual ~HostRegistration() = default;
  HostRegistration(const HostRegistration&) = delete;
  HostRegistration& operator=(const HostRegistration&) = delete;
  // Lets go of the memory so slowly that an engine that works hardly notices; no copy may use it any more. What is left
  // when it returns, as `hurry` says so, is let go at the end.
  virtual void let_go_gently(const std::stop_token& /*hurry*/) {}
};

// Thread safety: all members, any thread.
class CopyBackend {
 public:
  CopyBackend() = default;
  virtual ~CopyBackend() = default;
  CopyBackend(const CopyBackend&) = delete;
  CopyBackend& operator=(const CopyBackend&) = delete;

  // One for each direction. Throws as its constructor says.
  [[nodiscard]] virtual std::unique_ptr<BlockCopier> make_copier(protocol::Direction direction) = 0;
  // Begins to make a shard's memory usable, and says by `progress` how far it is: at once, or from threads of its own,
  // one call at a time. The end of the registration waits for them.
  [[nodiscard]] virtual std::unique_ptr<HostRegistration> use_host(
      const HostShard& host, std::function<void(const HostProgress&)> progress) = 0;
  // All that the engine has put into `stream` (a CUstream; 0: nothing to wait for) belongs to steps up to this one.
  virtual void record_step(std::uint64_t step, std::uintptr_t stream) = 0;
  // What is put into `stream` from now on waits for the mark. REQUIRES: mark != 0. Throws what the device does.
  virtual void make_wait(std::uintptr_t stream, CopyMark mark) = 0;
};

}  // namespace flexkv
