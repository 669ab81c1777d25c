// GpuShared: what both directions of a GPU agent share; made once per registration.
//
// Thread safety: as its parts say.
#pragma once
#include <cstdint>
#include <utility>

#include "cuda/block_map.h"
#include "cuda/gpu_device.h"
#include "cuda/gpu_wait.h"
#include "cuda/host_pieces.h"
#include "cuda/running_ops.h"
#include "cuda/stage_pool.h"
#include "cuda/step_events.h"

namespace flexkv::cuda {

struct GpuShared {
  // Throws Error, std::invalid_argument.
  GpuShared(const Api& api, int ordinal, DeviceLayout layout, std::uint64_t slot_stride_bytes)
      : device(api, ordinal),
        visit_(device),
        map(device, std::move(layout)),
        steps(device),
        stages(device, slot_stride_bytes) {
    visit_.end();
  }
  ~GpuShared() {  // its parts are given back here
    (void)visit_.try_begin();
  }
  GpuShared(const GpuShared&) = delete;
  GpuShared& operator=(const GpuShared&) = delete;

  const GpuDevice device;

 private:
  struct Begun : Visit {
    explicit Begun(const GpuDevice& on) : Visit(on) { begin(); }
  };
  Begun visit_;  // before all below is made, and behind it when it is given back

 public:
  const BlockMap map;
  StepEvents steps;
  StagePool stages;
  HostPieces pieces;
  RunningOps ops;
  // How long an op waits, before any of its copies is on its way, for what must come first: then it has failed. Set
  // before the first op.
  nanoseconds start_limit = std::chrono::seconds(60);
};

}  // namespace flexkv::cuda
