// Each mechanism of the GPU backend, over a CUDA driver in software: contents, what it does not take, fences, faults.
#include <array>
#include <string>
#include <thread>
#include <vector>

#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

constexpr std::array all_kinds = {MechanismKind::staged,  MechanismKind::direct,    MechanismKind::strided,
                                  MechanismKind::batched, MechanismKind::zero_copy, MechanismKind::mixed};

constexpr std::uint64_t few_bytes = std::uint64_t{2} << 20;  // so that stages are quickly made

// How often the mechanism's own call was made: what it cannot do without.
std::uint64_t calls_of(const FakeCuda& cuda, MechanismKind kind) {
  switch (kind) {
    case MechanismKind::staged:
    case MechanismKind::zero_copy:
    case MechanismKind::mixed:
      return cuda.num_calls("cuLaunchKernel");
    case MechanismKind::direct:
      return cuda.num_calls("cuMemcpyDtoHAsync") + cuda.num_calls("cuMemcpyHtoDAsync");
    case MechanismKind::strided:
      return cuda.num_calls("cuMemcpy2DAsync");
    case MechanismKind::batched:
      return cuda.num_calls("cuMemcpyBatchAsync");
  }
  return 0;
}

// Some blocks there and back, and everything else as it was.
void check_copies(GpuRig& rig, Choices& choices, std::uint64_t num_blocks, std::uint64_t num_slots) {
  for (const Direction direction : {Direction::store, Direction::load}) {
    rig.randomize();
    const std::uint64_t count = 1 + choices.below(num_blocks);
    const Ids slots = rig.some(count, num_slots, choices.one_in(2));
    const Ids blocks = rig.some(count, num_blocks, choices.one_in(2));
    auto want = rig.contents();
    rig.expect(want, rig.now(), direction, slots, blocks);
    CHECK(rig.copy(direction, slots, blocks) == count * rig.map().slot_bytes);
    rig.check(want);
  }
}

void each_copies_any_layout_that_it_takes() {
  for (const MechanismKind kind : all_kinds) {
    for (std::uint64_t seed = 1; seed <= 30; ++seed) {
      Choices choices(seed);
      FakeCuda cuda(seed);
      cuda.set_free_bytes(few_bytes);
      const std::uint64_t unit = std::array<std::uint64_t, 3>{1, 4, 16}[choices.below(3)];
      const std::uint64_t chunk = unit * (1 + choices.below(1500));
      const bool is_regular = kind == MechanismKind::strided || kind == MechanismKind::mixed;
      std::vector<std::uint64_t> chunks(kind == MechanismKind::direct ? 1 : 2 + choices.below(5), chunk);
      if (kind == MechanismKind::mixed && choices.one_in(4)) chunks = {chunk};
      if (!is_regular) chunks.back() = unit * (1 + choices.below(1500));
      if (kind == MechanismKind::direct && choices.one_in(2)) chunks = {4096 * (1 + choices.below(3))};  // they touch
      const std::uint64_t num_blocks = 1 + choices.below(60);
      const std::uint64_t num_slots = num_blocks + choices.below(20);
      const std::uint64_t gap = choices.one_in(2) ? unit * choices.below(20) : 0;
      GpuRig rig(cuda, choices, chunks, num_blocks, static_cast<std::int64_t>(num_slots), gap, is_regular);
      rig.backend().choices().force(kind);
      rig.use_host();
      const std::uint64_t before = calls_of(cuda, kind);
      const std::uint64_t kernels_before = cuda.num_calls("cuLaunchKernel");
      check_copies(rig, choices, num_blocks, num_slots);
      CHECK(calls_of(cuda, kind) > before && cuda.is_idle());
      const bool has_kernels = is_regular ? kind != MechanismKind::strided
                                          : kind == MechanismKind::staged || kind == MechanismKind::zero_copy;
      CHECK(has_kernels || cuda.num_calls("cuLaunchKernel") == kernels_before);
    }
  }
}

void a_zero_copy_of_many_blocks_takes_several_launches() {
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(few_bytes);
  GpuRig rig(cuda, choices, {16, 16}, 1100, 1100);
  rig.backend().choices().force(MechanismKind::zero_copy);
  rig.use_host();
  const Ids slots = rig.some(1100, 1100, false);
  const Ids blocks = rig.some(1100, 1100, false);
  for (const Direction direction : {Direction::store, Direction::load}) {
    const std::uint64_t before = cuda.num_calls("cuLaunchKernel");
    rig.randomize();
    auto want = rig.contents();
    rig.expect(want, rig.now(), direction, slots, blocks);
    (void)rig.copy(direction, slots, blocks);
    rig.check(want);
    CHECK(cuda.num_calls("cuLaunchKernel") == before + 3);
  }
}

void a_batch_of_many_chunks_takes_several_calls() {
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(few_bytes);
  GpuRig rig(cuda, choices, {48, 16, 16}, 1500, 1500);
  rig.backend().choices().force(MechanismKind::batched);
  rig.use_host();
  const Ids slots = rig.some(1500, 1500, false);
  const Ids blocks = rig.some(1500, 1500, false);
  auto want = rig.contents();
  rig.expect(want, rig.now(), Direction::load, slots, blocks);
  (void)rig.copy(Direction::load, slots, blocks);
  rig.check(want);
  CHECK(cuda.num_calls("cuMemcpyBatchAsync") == 18);  // 4,500 chunks
}

void adjacent_blocks_of_one_piece_go_as_one_copy() {
  for (const MechanismKind kind : {MechanismKind::direct, MechanismKind::batched}) {
    Choices choices(std::uint64_t{1});
    FakeCuda cuda(1);
    cuda.set_free_bytes(few_bytes);
    GpuRig rig(cuda, choices, {8192}, 20, 20);
    rig.backend().choices().force(kind);
    rig.use_host();
    const std::uint64_t before = calls_of(cuda, kind);
    auto want = rig.contents();
    const Ids slots = {3, 4, 5, 6, 9, 10};
    const Ids blocks = {7, 8, 9, 1, 2, 3};
    rig.expect(want, rig.now(), Direction::store, slots, blocks);
    (void)rig.copy(Direction::store, slots, blocks);
    rig.check(want);
    CHECK(calls_of(cuda, kind) - before == (kind == MechanismKind::direct ? 3 : 1));
  }
}

// What a mechanism cannot do goes through stages instead, and is right.
void what_is_not_taken_goes_through_stages() {
  const auto goes_through_stages = [](FakeCuda& cuda, GpuRig& rig, Choices& choices) {
    const auto num_stores = [&cuda] {
      return cuda.num_calls("cuMemcpyDtoHAsync") + cuda.num_calls("cuMemcpyBatchAsync");
    };
    const std::uint64_t stores = num_stores();
    const std::uint64_t gathers = cuda.launches("gather_16").count;
    check_copies(rig, choices, 20, 20);
    CHECK(num_stores() > stores && cuda.launches("gather_16").count > gathers);
    CHECK(cuda.num_calls("cuMemcpy2DAsync") == 0);
  };
  for (const MechanismKind kind : {MechanismKind::zero_copy, MechanismKind::batched}) {
    for (const bool is_moved : {false, true}) {  // not registered; at another address for the GPU
      Choices choices(std::uint64_t{1});
      FakeCuda cuda(1);
      cuda.set_free_bytes(few_bytes);
      if (is_moved) cuda.move_host_memory();
      GpuRig rig(cuda, choices, {512, 512}, 20, 20);
      rig.backend().choices().force(kind);
      if (is_moved) rig.use_host();
      goes_through_stages(cuda, rig, choices);
    }
  }
  for (const MechanismKind kind :
       {MechanismKind::strided, MechanismKind::batched, MechanismKind::direct, MechanismKind::mixed}) {
    Choices choices(std::uint64_t{2});
    FakeCuda cuda(2);
    cuda.set_free_bytes(few_bytes);
    if (kind == MechanismKind::batched) cuda.take_batches_away();
    GpuRig rig(cuda, choices, {512, 1024, 512}, 20, 20, 0, true);  // not regular, not one piece
    rig.backend().choices().force(kind);
    rig.use_host();
    goes_through_stages(cuda, rig, choices);
  }
}

// Two allocations that happen to touch, with the planes' border inside or between chunks.
void no_copy_reaches_from_one_allocation_into_another() {
  for (const MechanismKind kind : {MechanismKind::strided, MechanismKind::batched, MechanismKind::direct}) {
    for (const std::uint64_t border : {std::uint64_t{10} * 512, std::uint64_t{20} * 512}) {
      Choices choices(std::uint64_t{3});
      FakeCuda cuda(3);
      cuda.set_free_bytes(few_bytes);
      GpuRig whole(
          cuda, choices,
          kind == MechanismKind::direct ? std::vector<std::uint64_t>{512} : std::vector<std::uint64_t>{512, 512}, 20,
          20, 0, true);
      const std::uint64_t begin = whole.map().layout.planes.front().base;
      cuda.add_allocation(begin, begin + border);
      cuda.add_allocation(begin + border, begin + 2 * 20 * 512 + 64);
      const GpuDevice device(cuda.api(), 0);
      device.enter();
      const BlockMap map(device, whole.map().layout);
      const bool is_between_planes = border == 20 * 512;
      CHECK(map.plane_pitch_bytes == 0);
      CHECK(map.chunks_are_within_allocations == is_between_planes);
      CHECK(map.layout_class().ends_with("-split") == !is_between_planes);
    }
  }
}

void each_waits_on_the_device_for_the_step() {
  for (const MechanismKind kind : all_kinds) {
    Choices choices(std::uint64_t{3});
    FakeCuda cuda(3);
    cuda.set_free_bytes(few_bytes);
    const std::vector<std::uint64_t> chunks(kind == MechanismKind::direct ? 1 : 2, 4096);
    GpuRig rig(cuda, choices, chunks, 2, 2, 0, true);
    rig.backend().choices().force(kind);
    rig.use_host();
    const std::uint64_t before = calls_of(cuda, kind);
    Stream engine = cuda.make_stream();
    for (std::uint64_t round = 0; round < 10; ++round) {
      const auto value = static_cast<std::byte>(round + 1);
      std::byte read{};
      cuda.add_work(engine, [] { std::this_thread::yield(); });
      cuda.add_work(engine, [&] { std::fill_n(rig.block(0, 1), 4096, value); });
      rig.backend().record_step(2 * round + 1, reinterpret_cast<std::uintptr_t>(engine));
      (void)rig.copy(Direction::store, {0}, {1}, 2 * round + 1);
      CHECK(rig.slot(0)[0] == value && rig.slot(0)[4095] == value);
      cuda.add_work(engine, [] { std::this_thread::yield(); });
      const std::byte held = rig.block(0, 0)[4095];
      cuda.add_work(engine, [&] { read = rig.block(0, 0)[4095]; });
      rig.backend().record_step(2 * round + 2, reinterpret_cast<std::uintptr_t>(engine));
      (void)rig.copy(Direction::load, {0}, {0}, 2 * round + 2);
      CHECK(read == held && rig.block(0, 0)[4095] == value);
    }
    CHECK(calls_of(cuda, kind) > before);
    CHECK(cuda.api().cuStreamDestroy(engine) == success);
  }
}

// Whichever call fails: the copy says so, nothing of it runs on, and the next copy is right.
void a_call_that_fails_ends_the_copy_and_nothing_runs_on() {
  std::size_t num_failed = 0;
  for (const MechanismKind kind : all_kinds) {
    for (const char* call : {"cuLaunchKernel", "cuMemcpy2DAsync", "cuMemcpyBatchAsync", "cuMemcpyDtoHAsync",
                             "cuEventRecord", "cuEventQuery"}) {
      for (std::uint64_t nth = 1; nth <= 4; ++nth) {
        Choices choices(nth);
        FakeCuda cuda(nth);
        cuda.set_free_bytes(few_bytes);
        GpuRig rig(cuda, choices, std::vector<std::uint64_t>(kind == MechanismKind::direct ? 1 : 2, 512), 20, 20, 0,
                   true);
        rig.backend().choices().force(kind);
        rig.use_host();
        const Ids ids = rig.some(20, 20, false);
        cuda.fail(call, nth);
        try {
          (void)rig.copy(Direction::store, ids, ids);
        } catch (const Error& error) {
          CHECK(error.code() == FakeCuda::failure);
          ++num_failed;
        }
        cuda.fail("", 0);
        CHECK(cuda.is_idle());
        check_copies(rig, choices, 20, 20);
      }
    }
  }
  CHECK(num_failed > 25);
}

}  // namespace

int main() {
  each_copies_any_layout_that_it_takes();
  a_zero_copy_of_many_blocks_takes_several_launches();
  a_batch_of_many_chunks_takes_several_calls();
  adjacent_blocks_of_one_piece_go_as_one_copy();
  what_is_not_taken_goes_through_stages();
  no_copy_reaches_from_one_allocation_into_another();
  each_waits_on_the_device_for_the_step();
  a_call_that_fails_ends_the_copy_and_nothing_runs_on();
  std::puts("test_gpu_mechanisms: ok");
  return 0;
}
