// A GPU rig, with small stages unless it is told otherwise, and a stream of the engine's that is held: what is put into
// it waits.
#pragma once
#include <utility>
#include <vector>

#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"

namespace flexkv::cuda {

struct HeldGpu {
  std::uint64_t free_bytes = std::uint64_t{96} << 10;  // stages of 16 KiB
  bool has_slim_kernels = true;
  int num_multiprocessors = 132;
  TunerLimits limits = GpuRig::small;
};

struct HeldEngine {
  explicit HeldEngine(std::vector<std::uint64_t> chunks = {4096, 4096}, const HeldGpu& gpu = {})
      : rig(set_up(cuda, gpu), choices, std::move(chunks), 80, 80, 0, false, gpu.limits) {
    cuda.hold(engine, true);
  }
  ~HeldEngine() {
    go_on();
    CHECK(cuda.api().cuStreamDestroy(engine) == success);
  }
  HeldEngine(const HeldEngine&) = delete;
  HeldEngine& operator=(const HeldEngine&) = delete;

  void record_step(std::uint64_t step) { rig.backend().record_step(step, reinterpret_cast<std::uintptr_t>(engine)); }
  void go_on() { cuda.hold(engine, false); }

  static FakeCuda& set_up(FakeCuda& cuda, const HeldGpu& gpu) {
    cuda.set_free_bytes(gpu.free_bytes);
    cuda.set_multiprocessors(gpu.num_multiprocessors);
    if (!gpu.has_slim_kernels) cuda.take_slim_kernels_away();
    return cuda;
  }

  Choices choices{std::uint64_t{5}};
  FakeCuda cuda{5};
  GpuRig rig;
  Stream engine = cuda.make_stream();
};

}  // namespace flexkv::cuda
