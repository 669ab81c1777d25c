// Blocks that go straight, by the copy engine, beside those that pass through stages.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/staged_copies.h"
#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

// Blocks of 128 KiB in one tensor, stages of 1 MiB, and an engine's stream that is held.
struct Blocks {
  explicit Blocks(std::vector<std::uint64_t> chunks_kib, MechanismKind kind = MechanismKind::staged)
      : rig(with_few_bytes(cuda), choices, in_bytes(std::move(chunks_kib)), 80, 80, 0, true) {
    rig.backend().choices().force(kind);
    cuda.hold(engine, true);
  }
  ~Blocks() {
    cuda.hold(engine, false);
    CHECK(cuda.api().cuStreamDestroy(engine) == success);
  }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

  static FakeCuda& with_few_bytes(FakeCuda& cuda) {
    cuda.set_free_bytes(std::uint64_t{4} << 20);
    return cuda;
  }
  static std::vector<std::uint64_t> in_bytes(std::vector<std::uint64_t> kib) {
    for (std::uint64_t& each : kib) each *= 1024;
    return kib;
  }
  // Copies as many, checks all bytes; returns how many went straight: copies beyond the one of each stage.
  std::uint64_t num_straight(Direction direction, std::size_t count) {
    const char* const piece = direction == Direction::store ? "cuMemcpyDtoHAsync" : "cuMemcpyHtoDAsync";
    const auto copies = [&] { return cuda.num_calls("cuMemcpy2DAsync") + cuda.num_calls(piece); };
    const std::uint64_t before = copies();
    const std::uint64_t stages = cuda.num_calls("cuLaunchKernel");
    const Ids slots = numbered(0, count);
    const Ids blocks = reversed(count);
    rig.randomize();
    auto want = rig.contents();
    rig.expect(want, rig.now(), direction, slots, blocks);
    CHECK(rig.copy(direction, slots, blocks) == count * 128 * 1024);
    rig.check(want);
    if (!has_step) CHECK(cuda.is_idle());
    return copies() - before - (cuda.num_calls("cuLaunchKernel") - stages);
  }
  // The engine has a step, the first, that does not end.
  void begin_step() {
    has_step = true;
    cuda.add_work(engine, [] {});
    rig.backend().record_step(1, reinterpret_cast<std::uintptr_t>(engine));
  }
  static Ids reversed(std::size_t count) {
    Ids ids = numbered(0, count);
    std::ranges::reverse(ids);
    return ids;
  }

  Choices choices{std::uint64_t{9}};
  FakeCuda cuda{9};
  GpuRig rig;
  Stream engine = cuda.make_stream();
  bool has_step = false;
};

// While a store's first stage is gathered, and a load's last one scattered. 128 KiB take the copy engine 4.4 us.
void the_edge_of_an_op_goes_straight() {
  for (const std::vector<std::uint64_t>& chunks_kib : {std::vector<std::uint64_t>{128}, {64, 64}}) {
    Blocks blocks(chunks_kib);
    for (const Direction direction : {Direction::load, Direction::store}) {
      CHECK(blocks.num_straight(direction, 80) == 4);
      CHECK(blocks.num_straight(direction, 8) == 4);
      CHECK(blocks.num_straight(direction, 7) == 0);
      CHECK(blocks.num_straight(direction, 1) == 0);
    }
  }
  Blocks irregular({64, 32, 32});
  CHECK(irregular.num_straight(Direction::load, 80) == 0);
  CHECK(irregular.num_straight(Direction::store, 80) == 0);
}

// The kernel of a store's first stage is launched behind one block of the edge; what was left of it when the op failed
// is not taken for another's.
void a_kernel_does_not_wait_for_all_of_the_edge() {
  Blocks blocks({64, 64});
  const Ids ids = numbered(0, 80);
  const std::uint64_t before = blocks.cuda.num_calls("cuMemcpy2DAsync");
  blocks.cuda.fail("cuLaunchKernel", 1);
  CHECK_THROWS(blocks.rig.copy(Direction::store, ids, ids), Error);
  CHECK(blocks.cuda.num_calls("cuMemcpy2DAsync") == before + 1);
  CHECK(blocks.num_straight(Direction::store, 1) == 0);
  CHECK(blocks.num_straight(Direction::store, 80) == 4);
}

// Each block is a call of the driver: many of them would take the host longer than they are to last.
void an_edge_has_as_many_blocks_as_take_so_long() {
  const auto length = [](std::uint64_t chunk_bytes, std::size_t num_chunks, std::chrono::microseconds duration) {
    Choices choices(std::uint64_t{1});
    FakeCuda cuda(1);
    cuda.set_free_bytes(std::uint64_t{64} << 20);
    GpuRig rig(cuda, choices, std::vector<std::uint64_t>(num_chunks, chunk_bytes), 70, 70, 0, true);
    const Ids ids = numbered(0, 70);
    return length_of_edge({rig.map(), rig.shard(), ids, ids, rig.map().whole()}, duration);
  };
  using std::chrono::microseconds;
  CHECK(length(4096, 1, microseconds(16)) == 8 && length(512, 2, microseconds(16)) == 8);
  CHECK(length(64 << 10, 1, microseconds(16)) == 5 && length(4096, 64, microseconds(16)) == 2);
  CHECK(length(4096, 64, microseconds(60)) == 7 && length(4096, 64, microseconds(250)) == 27);
  CHECK(length(4096, 1, microseconds(250)) == 32);  // they take less
  CHECK(length(64 << 10, 4, microseconds(250)) == 32);
}

// Kernels take longer there, and those of both directions longer still.
void edges_are_longer_beside_the_engine() {
  Blocks blocks({64, 64});
  blocks.begin_step();
  for (const Direction direction : {Direction::load, Direction::store}) {
    CHECK(blocks.num_straight(direction, 80) == 14);
    CHECK(blocks.num_straight(direction, 27) == 13);  // at most half of all
    CHECK(blocks.num_straight(direction, 7) == 0);
  }
  const std::uint64_t launches = blocks.cuda.num_calls("cuLaunchKernel");
  std::thread load([&] { (void)blocks.rig.copy(Direction::load, {0}, {0}, 1); });
  blocks.cuda.await_calls("cuLaunchKernel", launches + 1);  // it waits for the step
  CHECK(blocks.num_straight(Direction::store, 80) == 32);
  blocks.cuda.hold(blocks.engine, false);
  load.join();
}

// It writes the engine's blocks; and while the step is not done stages can be filled, for which it would be in the way.
void nothing_of_a_load_goes_straight_before_its_step_is_done() {
  for (const MechanismKind kind : {MechanismKind::staged, MechanismKind::mixed}) {
    for (const std::size_t count : {std::size_t{20}, std::size_t{80}}) {  // stages hold 32 of them
      Blocks blocks({64, 64}, kind);
      blocks.begin_step();
      const Ids ids = numbered(0, count);
      const auto before = blocks.rig.contents();
      auto want = before;
      blocks.rig.expect(want, {before.tensors, before.host}, Direction::load, ids, ids);
      const std::uint64_t looks = blocks.cuda.num_calls("cuEventQuery");
      std::thread load([&] { (void)blocks.rig.copy(Direction::load, ids, ids, 1); });
      blocks.cuda.await_calls("cuEventQuery", looks + 60);
      blocks.rig.check(before);
      CHECK(blocks.cuda.num_calls("cuMemcpy2DAsync") == 0);
      blocks.cuda.hold(blocks.engine, false);
      load.join();
      blocks.rig.check(want);
      CHECK(blocks.cuda.is_idle());
      const bool is_mixed_later = kind == MechanismKind::mixed && count == 80;  // what came when the step was done
      CHECK((blocks.cuda.num_calls("cuMemcpy2DAsync") > 0) == is_mixed_later);
    }
  }
}

void a_third_of_a_mixed_op_goes_straight() {
  Blocks blocks({64, 64}, MechanismKind::mixed);
  for (const bool is_busy : {false, true}) {
    if (is_busy) blocks.begin_step();  // not that of these ops
    for (const Direction direction : {Direction::load, Direction::store}) {
      const std::uint64_t edge = is_busy ? 14 : 4;
      const std::uint64_t others = blocks.num_straight(direction, 80) - edge;
      CHECK(others >= (80 - edge) / 4 && others <= (80 - edge) * 2 / 5);
      CHECK(blocks.num_straight(direction, 1) == 0);
    }
  }
}

// What is left of a load when its last bytes have come is short, as of one that is not mixed.
void the_last_stage_of_a_mixed_load_is_short() {
  const auto check = [](bool is_store, const BatchLengths& lengths) {
    for (std::size_t all = 1; all < 300; ++all) {
      std::size_t left = all;
      std::size_t straight = 0;
      std::size_t last = 0;
      while (left > 0) {
        const Cut cut = next_cut(is_store, last, left, lengths, Straight::third);
        CHECK(cut.staged >= 1 && cut.staged <= 32 && cut.straight + cut.staged <= left);
        if (is_store && left == all) CHECK(cut.staged <= 8);
        straight += cut.straight;
        left -= cut.straight + cut.staged;
        last = cut.staged;
      }
      CHECK(is_store || last <= 8);
      CHECK(all < 32 || (straight >= all / 4 && straight <= all / 2));
      CHECK(next_cut(is_store, 0, all, lengths, Straight::edge).straight == 0);
    }
  };
  for (const std::size_t growth : {BatchLengths::any_growth, std::size_t{2}, std::size_t{3}}) {
    check(false, {4, 32, growth});
    check(true, {4, 32, growth});
  }
}

// Nothing of an op that failed is left for the next ones: no stage is held, no kernel launched late.
void an_op_that_fails_leaves_nothing_behind() {
  for (const MechanismKind kind : {MechanismKind::staged, MechanismKind::mixed}) {
    Blocks blocks({64, 64}, kind);
    for (const bool is_busy : {false, true}) {
      if (is_busy) blocks.begin_step();
      for (const char* call : {"cuMemcpy2DAsync", "cuLaunchKernel", "cuEventRecord", "cuEventQuery"}) {
        for (const std::uint64_t nth : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{4}}) {
          for (const Direction direction : {Direction::load, Direction::store}) {
            blocks.cuda.fail(call, nth);
            CHECK_THROWS(blocks.num_straight(direction, 80), Error);
            blocks.cuda.fail("", 0);
            CHECK(is_busy || blocks.cuda.is_idle());
            (void)blocks.num_straight(direction, 9);  // blocks of the op before stay as they are
          }
        }
      }
      for (const Direction direction : {Direction::load, Direction::store}) {
        CHECK(blocks.num_straight(direction, 80) >= 4);
      }
    }
  }
}

}  // namespace

int main() {
  the_edge_of_an_op_goes_straight();
  a_kernel_does_not_wait_for_all_of_the_edge();
  an_edge_has_as_many_blocks_as_take_so_long();
  edges_are_longer_beside_the_engine();
  nothing_of_a_load_goes_straight_before_its_step_is_done();
  a_third_of_a_mixed_op_goes_straight();
  the_last_stage_of_a_mixed_load_is_short();
  an_op_that_fails_leaves_nothing_behind();
  std::puts("test_gpu_straight: ok");
  return 0;
}
