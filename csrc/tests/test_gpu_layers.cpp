// Loads by layers over a CUDA driver in software: what the engine's stream finds behind a part's mark, in which parts
// slots are cut, and that nothing runs on after a fault.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <vector>

#include "cuda/gpu_wait.h"
#include "cuda/host_runs.h"
#include "cuda/layer_parts.h"
#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

constexpr std::uint64_t kib = 1024;

// Has the engine's stream wait for each part as it comes, and then look at all layers that end with it.
class Layers final : public PartSink {
 public:
  Layers(FakeCuda& cuda, GpuRig& rig, const Ids& slots, const Ids& blocks, bool waits)
      : cuda_(cuda), rig_(rig), slots_(slots), blocks_(blocks), waits_(waits), engine_(cuda.make_stream()) {}
  ~Layers() override {
    finish();
    CHECK(cuda_.api().cuStreamDestroy(engine_) == success);
  }

  void part_issued(std::uint64_t end_bytes, CopyMark mark) override {
    CHECK(mark != 0 && end_bytes > last_end_);
    last_end_ = end_bytes;
    ++num_parts;
    if (waits_) rig_.backend().make_wait(reinterpret_cast<std::uintptr_t>(engine_), mark);
    cuda_.add_work(engine_, [this, end_bytes] { look(end_bytes); });
  }

  void finish() {
    CHECK(wait_until([this] { return num_looks_ == num_parts; }, Looks::close, std::chrono::seconds(60)));
  }

  std::size_t num_parts = 0;
  std::atomic<std::size_t> num_good = 0;
  std::atomic<std::size_t> num_bad = 0;

 private:
  void look(std::uint64_t end_bytes) {
    const DeviceLayout& layout = rig_.map().layout;
    std::uint64_t at = 0;
    for (std::size_t plane = 0; plane < layout.planes.size(); ++plane) {
      const std::uint64_t bytes = layout.planes[plane].chunk_bytes;
      if (at + bytes > end_bytes) break;
      for (std::size_t i = 0; i < slots_.size(); ++i) {
        const std::byte* const device = rig_.block(plane, static_cast<std::uint64_t>(blocks_[i]));
        const std::byte* const host = rig_.slot(static_cast<std::uint64_t>(slots_[i])) + at;
        (std::memcmp(device, host, bytes) == 0 ? num_good : num_bad) += 1;
      }
      at += bytes;
    }
    ++num_looks_;
  }

  std::atomic<std::size_t> num_looks_ = 0;
  FakeCuda& cuda_;
  GpuRig& rig_;
  const Ids& slots_;
  const Ids& blocks_;
  const bool waits_;
  const Stream engine_;
  std::uint64_t last_end_ = 0;
};

constexpr std::uint64_t num_blocks = 30;

std::vector<std::uint64_t> some_layers(Choices& choices) {
  std::vector<std::uint64_t> chunks(5);
  for (std::uint64_t& chunk : chunks) chunk = 16 * (12'000 + choices.below(8'000));
  return chunks;
}

void behind_its_mark_a_part_is_there() {
  std::size_t num_parts = 0;
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    Choices choices(seed);
    FakeCuda cuda(seed);
    if (seed % 2 == 0) cuda.set_free_bytes(std::uint64_t{8} << 20);  // stages are used again
    GpuRig rig(cuda, choices, some_layers(choices), num_blocks, num_blocks + 4);
    if (seed % 2 == 0) rig.use_host();  // pieces of scattered slots go as batches
    const std::uint64_t batches = cuda.num_calls("cuMemcpyBatchAsync");
    for (int load = 0; load < 3; ++load) {
      const Ids slots = rig.some(num_blocks - 2, num_blocks + 4, load == 1);
      const Ids blocks = rig.some(num_blocks - 2, num_blocks, false);
      rig.randomize();
      auto want = rig.contents();
      rig.expect(want, rig.now(), Direction::load, slots, blocks);
      Layers layers(cuda, rig, slots, blocks, true);
      CHECK(rig.copy_in_parts(slots, blocks, layers) == slots.size() * rig.map().slot_bytes);
      layers.finish();
      rig.check(want);
      CHECK(layers.num_bad == 0 && layers.num_good > 0);
      num_parts += layers.num_parts;
    }
    CHECK(cuda.launches("slim_scatter").count > 0);  // the engine computes meanwhile
    CHECK((cuda.num_calls("cuMemcpyBatchAsync") > batches) == (seed % 2 == 0));
  }
  CHECK(num_parts > 9);
}

void without_the_wait_it_is_found_missing() {
  std::size_t num_bad = 0;
  for (std::uint64_t seed = 1; seed <= 2; ++seed) {
    Choices choices(seed);
    FakeCuda cuda(seed);
    GpuRig rig(cuda, choices, some_layers(choices), num_blocks, num_blocks);
    const Ids ids = numbered(0, num_blocks);
    Layers layers(cuda, rig, ids, ids, false);
    (void)rig.copy_in_parts(ids, ids, layers);
    layers.finish();
    num_bad += layers.num_bad;
  }
  CHECK(num_bad > 0);
}

void parts_end_with_layers_and_the_last_one_with_the_slot() {
  Choices choices(std::uint64_t{3});
  FakeCuda cuda(3);
  GpuRig rig(cuda, choices, std::vector<std::uint64_t>(32, 64 * kib), 8, 8);  // 2 MiB
  const auto num_parts = [&rig](std::int64_t count, bool adjacent) {
    Ids slots = numbered(0, static_cast<std::uint64_t>(count));
    if (!adjacent) std::ranges::for_each(slots, [](std::int64_t& slot) { slot *= 2; });
    const auto parts = layer_parts(rig.map(), slots, 1 << 20);
    std::uint64_t end = 0;
    for (const SlotPart& part : parts) {
      CHECK(part.begin_byte == end && part.bytes % (64 * kib) == 0);
      end += part.bytes;
    }
    CHECK(end == 2048 * kib);
    return parts.size();
  };
  CHECK(num_parts(1, true) == 1);    // a block is not worth more than one copy
  CHECK(num_parts(64, true) == 8);   // 256 KiB of each
  CHECK(num_parts(64, false) == 4);  // 512 KiB
  CHECK(num_parts(16, true) == 4);   // 8 MiB in all
  CHECK(num_parts(1000, true) == 8);
}

void a_call_that_fails_ends_the_load_and_nothing_runs_on() {
  std::size_t num_failed = 0;
  for (std::uint64_t nth = 1; nth <= 5; nth += 4) {
    Choices choices(nth);
    FakeCuda cuda(nth);
    GpuRig rig(cuda, choices, some_layers(choices), num_blocks, num_blocks);
    const Ids ids = numbered(0, num_blocks);
    for (const char* call :
         {"cuMemcpy2DAsync", "cuLaunchKernel", "cuStreamWaitEvent", "cuEventRecord", "cuEventQuery"}) {
      cuda.fail(call, nth);
      try {
        Layers layers(cuda, rig, ids, ids, false);
        (void)rig.copy_in_parts(ids, ids, layers);
      } catch (const Error& error) {
        CHECK(error.code() == FakeCuda::failure);
        ++num_failed;
      }
      cuda.fail("", 0);
      CHECK(cuda.is_idle());
      rig.copy_and_check(Direction::load, ids, ids);
    }
  }
  CHECK(num_failed > 4);
}

}  // namespace

int main() {
  behind_its_mark_a_part_is_there();
  without_the_wait_it_is_found_missing();
  parts_end_with_layers_and_the_last_one_with_the_slot();
  a_call_that_fails_ends_the_load_and_nothing_runs_on();
  std::puts("test_gpu_layers: ok");
  return 0;
}
