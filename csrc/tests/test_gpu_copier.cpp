// The GPU backend over a CUDA driver in software: layouts, order between streams, stages, faults of every call.
#include <algorithm>
#include <array>
#include <cstring>
#include <thread>
#include <vector>

#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

std::vector<std::uint64_t> some_chunks(Choices& choices, std::size_t count, std::uint64_t unit,
                                       std::uint64_t most_units) {
  std::vector<std::uint64_t> chunks(count);
  for (std::uint64_t& chunk : chunks) chunk = unit * (1 + choices.below(most_units));
  return chunks;
}

void any_layout_is_copied_as_it_says_and_nothing_else_changes() {
  for (std::uint64_t seed = 1; seed <= 40; ++seed) {
    Choices choices(seed);
    FakeCuda cuda(seed);
    cuda.set_free_bytes(std::uint64_t{8} << 20);  // so that stages are quickly made
    const std::uint64_t unit = std::array<std::uint64_t, 3>{1, 4, 16}[choices.below(3)];
    const auto chunks = some_chunks(choices, 1 + choices.below(5), unit, 600);
    const std::uint64_t num_blocks = 1 + choices.below(400);
    const std::uint64_t num_slots = num_blocks + choices.below(20);
    GpuRig rig(cuda, choices, chunks, num_blocks, static_cast<std::int64_t>(num_slots),
               choices.one_in(2) ? unit * choices.below(20) : 0);
    const std::uint64_t count = 1 + choices.below(num_blocks);
    for (const Direction direction : {Direction::store, Direction::load, Direction::load}) {
      const Ids slots = rig.some(count, num_slots, choices.one_in(2));
      const Ids blocks = rig.some(count, num_blocks, choices.one_in(2));
      rig.copy_and_check(direction, slots, blocks);
    }
  }
}

void only_the_named_part_of_a_slot_is_copied() {
  std::size_t num_in_rows = 0;
  for (std::uint64_t seed = 1; seed <= 60; ++seed) {
    Choices choices(seed);
    FakeCuda cuda(seed);
    const std::uint64_t unit = std::array<std::uint64_t, 3>{1, 4, 16}[choices.below(3)];
    const auto chunks = some_chunks(choices, 1 + choices.below(6), unit, 3000);
    cuda.set_free_bytes(std::uint64_t{choices.one_in(2) ? 600u : 8192u} << 10);  // few blocks fit a stage
    const std::uint64_t num_blocks = 1 + choices.below(40);
    const std::uint64_t num_slots = num_blocks + choices.below(20);
    GpuRig rig(cuda, choices, chunks, num_blocks, static_cast<std::int64_t>(num_slots));
    const auto num_units = static_cast<std::uint32_t>(rig.map().table.units.size());
    for (const Direction direction : {Direction::store, Direction::load}) {
      rig.randomize();
      const auto first = static_cast<std::uint32_t>(choices.below(num_units));
      const auto count = static_cast<std::uint32_t>(1 + choices.below(num_units - first));
      const SlotPart part = rig.map().part(first, count);
      const std::uint64_t num_copied = 1 + choices.below(num_blocks);
      const Ids slots = rig.some(num_copied, num_slots, choices.one_in(2));
      const Ids blocks = rig.some(num_copied, num_blocks, choices.one_in(2));
      auto want = rig.contents();
      rig.expect(want, rig.now(), direction, slots, blocks, part.begin_byte, part.begin_byte + part.bytes);
      CHECK(rig.copy_part(direction, slots, blocks, part) == num_copied * part.bytes);
      CHECK(cuda.is_idle());
      rig.check(want);
    }
    num_in_rows += cuda.num_calls("cuMemcpy2DAsync");
  }
  CHECK(num_in_rows > 50);
}

// A stage that takes few blocks, so that each is used again and again.
void stages_are_used_again_only_when_their_bytes_have_left() {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    Choices choices(seed);
    FakeCuda cuda(seed);
    cuda.set_free_bytes(std::uint64_t{96} << 10);
    GpuRig rig(cuda, choices, {4096, 4096, 2048}, 60, 60);
    CHECK(cuda.largest_allocation() <= std::uint64_t{96} << 10);
    const Ids ids = numbered(0, 60);
    auto blocks = ids;
    choices.shuffle(blocks);
    for (const Direction direction : {Direction::store, Direction::load}) rig.copy_and_check(direction, ids, blocks);
  }
}

// Of slots that are longer than a stage, and of parts that are: all that is taken of the GPU has a bound.
void long_slots_pass_in_pieces() {
  constexpr std::uint64_t mib = std::uint64_t{1} << 20;
  for (const bool is_tight : {false, true}) {
    Choices choices(std::uint64_t{1});
    FakeCuda cuda(1);
    if (is_tight) cuda.set_free_bytes(8 * mib);
    const std::uint64_t large = is_tight ? 3 * mib : 33 * mib;
    GpuRig rig(cuda, choices, {large + 16, 4096 + 48, large}, 2, 2);
    CHECK(cuda.largest_allocation() == (is_tight ? 8 * mib : StagePool::total_bytes));
    for (const Direction direction : {Direction::store, Direction::load}) {
      cuda.forget_copies();
      rig.copy_and_check(direction, {1, 0}, {0, 1});
      const auto copies = cuda.copies();
      CHECK(std::ranges::all_of(copies, [&](const auto& each) { return each.bytes <= (is_tight ? 2 : 32) * mib; }));
      CHECK(copies.size() >= 6);
    }
    const SlotPart part = rig.map().part(1, rig.map().whole().num_units - 2);
    auto want = rig.contents();
    rig.expect(want, rig.now(), Direction::store, {1}, {0}, part.begin_byte, part.begin_byte + part.bytes);
    CHECK(rig.copy_part(Direction::store, {1}, {0}, part) == part.bytes);
    rig.check(want);
    LastMark mark;
    rig.randomize();
    want = rig.contents();
    rig.expect(want, rig.now(), Direction::load, {1}, {0});
    (void)rig.copy_in_parts({1}, {0}, mark);
    rig.check(want);
  }
}

void slots_may_be_farther_apart_than_a_stage_is_long() {
  constexpr std::uint64_t mib = std::uint64_t{1} << 20;
  constexpr std::uint64_t stride = 3 * mib;
  constexpr std::uint64_t chunk = 4096;
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(8 * mib);
  GpuRig rig(cuda, choices, {chunk, chunk}, 4, 4);
  std::vector<std::byte> host(4 * stride, std::byte{0x5a});
  const Ids slots = {0, 1, 3};
  const Ids blocks = {2, 0, 1};
  const auto stores = rig.backend().make_copier(Direction::store);
  CHECK(stores->copy({host.data(), stride, 4}, slots, blocks, 0) == 3 * 2 * chunk);
  for (std::size_t i = 0; i < slots.size(); ++i) {
    std::byte* const slot = host.data() + static_cast<std::uint64_t>(slots[i]) * stride;
    for (std::size_t plane = 0; plane < 2; ++plane) {
      CHECK(std::memcmp(slot + plane * chunk, rig.block(plane, static_cast<std::uint64_t>(blocks[i])), chunk) == 0);
    }
    std::fill_n(slot, 2 * chunk, std::byte{0x5a});
  }
  CHECK(std::ranges::all_of(host, [](std::byte each) { return each == std::byte{0x5a}; }));
}

void both_directions_share_the_stages() {
  for (std::uint64_t seed = 1; seed <= 6; ++seed) {
    Choices choices(seed);
    FakeCuda cuda(seed);
    cuda.set_free_bytes(std::uint64_t{128} << 10);
    GpuRig rig(cuda, choices, {4096, 4096}, 80, 80);
    const Ids low = numbered(0, 40);
    const Ids high = numbered(40, 40);
    auto want = rig.contents();
    rig.expect(want, rig.now(), Direction::load, low, low);
    rig.expect(want, rig.now(), Direction::store, high, high);
    std::thread loads([&] {
      for (int i = 0; i < 5; ++i) (void)rig.copy(Direction::load, low, low);
    });
    for (int i = 0; i < 5; ++i) (void)rig.copy(Direction::store, high, high);
    loads.join();
    rig.check(want);
  }
}

void copies_wait_for_the_step() {
  for (const std::uint64_t chunk : {std::uint64_t{4096}, std::uint64_t{17} << 20}) {
    Choices choices(std::uint64_t{3});
    FakeCuda cuda(3);
    GpuRig rig(cuda, choices, {chunk}, 2, 2);
    Stream engine = cuda.make_stream();
    for (int round = 0; round < 10; ++round) {
      const auto value = static_cast<std::byte>(round + 1);
      std::byte read{};
      cuda.add_work(engine, [&] { std::this_thread::yield(); });
      cuda.add_work(engine, [&] { std::fill_n(rig.block(0, 1), chunk, value); });
      rig.backend().record_step(2 * static_cast<std::uint64_t>(round) + 1, reinterpret_cast<std::uintptr_t>(engine));
      (void)rig.copy(Direction::store, {0}, {1}, 2 * static_cast<std::uint64_t>(round) + 1);
      CHECK(rig.slot(0)[0] == value && rig.slot(0)[chunk - 1] == value);
      cuda.add_work(engine, [&] { std::this_thread::yield(); });
      cuda.add_work(engine, [&] { read = rig.block(0, 0)[chunk - 1]; });
      const std::byte before = rig.block(0, 0)[chunk - 1];
      rig.backend().record_step(2 * static_cast<std::uint64_t>(round) + 2, reinterpret_cast<std::uintptr_t>(engine));
      (void)rig.copy(Direction::load, {0}, {0}, 2 * static_cast<std::uint64_t>(round) + 2);
      CHECK(read == before && rig.block(0, 0)[chunk - 1] == value);
    }
    CHECK(cuda.api().cuStreamDestroy(engine) == success);
  }
}

void an_old_step_is_waited_for_by_a_later_one() {
  Choices choices(std::uint64_t{4});
  FakeCuda cuda(4);
  GpuRig rig(cuda, choices, {64}, 2, 2);
  Stream engine = cuda.make_stream();
  std::fill_n(rig.block(0, 0), 64, std::byte{1});
  for (std::uint64_t step = 1; step <= 2 * StepEvents::num_kept; ++step) {
    cuda.add_work(engine, [&, step] { std::fill_n(rig.block(0, 0), 64, static_cast<std::byte>(step)); });
    rig.backend().record_step(step, reinterpret_cast<std::uintptr_t>(engine));
  }
  (void)rig.copy(Direction::store, {0}, {0}, 1);
  CHECK(static_cast<std::uint64_t>(rig.slot(0)[0]) >= StepEvents::num_kept);
  CHECK(cuda.api().cuStreamDestroy(engine) == success);
}

// Another thread may be late, and a caller may say a step twice: neither takes the place of what is waited for.
void a_step_that_is_not_beyond_the_last_is_ignored() {
  FakeCuda cuda(1);
  const GpuShared made(cuda.api(), 0, {4, {{std::uint64_t{1} << 40, 64, 64}}}, 4096);
  made.device.enter();
  StepEvents steps(made.device);
  Stream engine = cuda.make_stream();
  Stream idle = cuda.make_stream();
  steps.record(0, engine);
  CHECK(!steps.is_engine_busy());
  cuda.hold(engine, true);
  steps.record(100, engine);
  for (std::uint64_t step = 101 - StepEvents::num_kept; step <= 100; ++step) steps.record(step, idle);
  CHECK(steps.is_engine_busy());
  for (const std::uint64_t step : {std::uint64_t{1}, std::uint64_t{99}, std::uint64_t{100}}) {
    CHECK_THROWS(steps.wait(step, std::chrono::milliseconds(1)), Error);
  }
  steps.record(101, idle);
  steps.wait(101, std::chrono::seconds(20));
  cuda.hold(engine, false);
  steps.wait(100, std::chrono::seconds(20));
  CHECK(cuda.api().cuStreamDestroy(engine) == success && cuda.api().cuStreamDestroy(idle) == success);
}

// Whichever call fails: the copy says so, nothing of it runs on, and the next copy is right.
void a_call_that_fails_ends_the_copy_and_nothing_runs_on() {
  std::size_t num_failed = 0;
  for (const char* call : {"cuCtxSetCurrent", "cuLaunchKernel", "cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync",
                           "cuStreamWaitEvent", "cuEventRecord", "cuEventQuery"}) {
    for (std::uint64_t nth = 1; nth <= 12; ++nth) {
      Choices choices(nth);
      FakeCuda cuda(nth);
      cuda.set_free_bytes(std::uint64_t{96} << 10);
      GpuRig rig(cuda, choices, {4096, 4096}, 40, 40);
      const Ids ids = numbered(0, 40);
      for (const Direction direction : {Direction::store, Direction::load}) {
        cuda.fail(call, nth);
        try {
          (void)rig.copy(direction, ids, ids);
        } catch (const Error& error) {
          CHECK(error.code() == FakeCuda::failure && std::string(error.what()).find("A_FAULT") != std::string::npos);
          ++num_failed;
        }
        cuda.fail("", 0);
        CHECK(cuda.is_idle());
        rig.copy_and_check(direction, ids, ids);
      }
    }
  }
  CHECK(num_failed > 60);
}

void what_cannot_be_set_up_says_so_and_leaves_nothing_behind() {
  for (const char* call :
       {"cuDeviceGet", "cuDevicePrimaryCtxRetain", "cuCtxPushCurrent", "cuModuleLoadData", "cuDeviceGetAttribute",
        "cuFuncGetAttribute", "cuMemAlloc", "cuEventCreate", "cuStreamCreateWithPriority"}) {
    for (std::uint64_t nth = 1; nth <= 3; ++nth) {
      Choices choices(nth);
      FakeCuda cuda(nth);
      cuda.fail(call, nth);
      bool failed = false;
      try {
        const GpuRig rig(cuda, choices, {4096}, 4, 4);
      } catch (const Error&) {
        failed = true;
      }
      CHECK(failed == cuda.has_failed());
    }
  }
  FakeCuda cuda(1);
  Choices choices(std::uint64_t{1});
  cuda.set_free_bytes(4096);
  CHECK_THROWS(GpuRig(cuda, choices, {1 << 16}, 4, 4), Error);
}

}  // namespace

int main() {
  any_layout_is_copied_as_it_says_and_nothing_else_changes();
  only_the_named_part_of_a_slot_is_copied();
  stages_are_used_again_only_when_their_bytes_have_left();
  long_slots_pass_in_pieces();
  slots_may_be_farther_apart_than_a_stage_is_long();
  both_directions_share_the_stages();
  copies_wait_for_the_step();
  an_old_step_is_waited_for_by_a_later_one();
  a_step_that_is_not_beyond_the_last_is_ignored();
  a_call_that_fails_ends_the_copy_and_nothing_runs_on();
  what_cannot_be_set_up_says_so_and_leaves_nothing_behind();
  std::puts("test_gpu_copier: ok");
  return 0;
}
