// A GPU rig with small stages, and a stream of the engine's that is held: what is put into it waits.
#pragma once
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"

namespace flexkv::cuda {

struct HeldEngine {
  HeldEngine() { cuda.hold(engine, true); }
  ~HeldEngine() {
    go_on();
    CHECK(cuda.api().cuStreamDestroy(engine) == success);
  }
  HeldEngine(const HeldEngine&) = delete;
  HeldEngine& operator=(const HeldEngine&) = delete;

  void record_step(std::uint64_t step) { rig.backend().record_step(step, reinterpret_cast<std::uintptr_t>(engine)); }
  void go_on() { cuda.hold(engine, false); }

  static FakeCuda& with_small_stages(FakeCuda& cuda) {
    cuda.set_free_bytes(std::uint64_t{96} << 10);
    return cuda;
  }

  Choices choices{std::uint64_t{5}};
  FakeCuda cuda{5};
  GpuRig rig{with_small_stages(cuda), choices, {4096, 4096}, 80, 80};
  Stream engine = cuda.make_stream();
};

}  // namespace flexkv::cuda
