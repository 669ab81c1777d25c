// Long ops take turns, so that the engine's own copies come in between.
#include <algorithm>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/copy_turns.h"
#include "cuda/gpu_lane.h"
#include "cuda/lane_streams.h"
#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

constexpr TurnBytes few = {30, 100};

void a_turn_has_so_many_bytes_at_most() {
  FakeCuda cuda(1);
  const GpuDevice device(cuda.api(), 0);
  device.enter();
  StepEvents steps(device);
  CopyTurns turns(steps, few);
  for (const bool is_beside_work : {false, true}) {
    const std::uint64_t most = is_beside_work ? 30 : 100;
    turns.begin();
    CHECK(!turns.take(most + 1, is_beside_work));  // a piece is not divided
    CHECK(turns.take(1, is_beside_work) && !turns.take(most - 1, is_beside_work));
    CHECK(turns.take(1, is_beside_work));
    turns.add(most);
    CHECK(turns.take(1, is_beside_work));
    turns.begin();
    CHECK(!turns.take(most, is_beside_work));
  }
}

// So that the engine's copies come in wherever it works, also on what the op has nothing to do with.
void turns_are_shorter_beside_the_engine() {
  FakeCuda cuda(1);
  const GpuDevice device(cuda.api(), 0);
  device.enter();
  StepEvents steps(device);
  CopyTurns turns(steps, few);
  const Stream engine = cuda.make_stream();
  CHECK(!turns.take(30, false) && !turns.take(60, false));
  cuda.hold(engine, true);
  cuda.add_work(engine, [] {});
  steps.record(1, engine);
  CHECK(turns.take(1, false) && !turns.take(29, false) && turns.take(1, false));
  cuda.hold(engine, false);
  CHECK(cuda.api().cuStreamDestroy(engine) == success);
}

// Two at the same time would share the link, and each be late.
void what_goes_on_in_another_stream_comes_behind_all_before() {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    FakeCuda cuda(seed);
    const GpuDevice device(cuda.api(), 0);
    device.enter();
    LaneStreams lane(device, Direction::store);
    const GpuStream other(device);
    std::vector<int> done;
    lane.begin_op();
    for (int piece = 0; piece < 12; ++piece) {
      lane.go_on_in(piece % 3 == 1 ? other : lane.own());
      CHECK(lane.copies().get() == (piece % 3 == 1 ? other : lane.own()).get());
      cuda.add_work(lane.copies().get(), [&done, piece] { done.push_back(piece); });
    }
    other.drain();
    lane.drain();
    CHECK(done == std::vector<int>({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11}));
  }
}

// Blocks of 1 MiB. A stage has one of them unless told otherwise, a segment of the copy engine's 32.
struct Blocks {
  Blocks(FakeCuda& fake, Choices& choices, MechanismKind kind, std::uint64_t count, std::uint64_t stages_mib = 4,
         bool in_one_tensor = true)
      : cuda(with_free_mib(fake, stages_mib)),
        rig(cuda, choices, std::vector<std::uint64_t>(2, 512 << 10), count, static_cast<std::int64_t>(count), 0,
            in_one_tensor),
        ids(numbered(0, count)) {
    rig.use_host();
    rig.backend().choices().force(kind);
  }
  ~Blocks() {
    cuda.hold(engine, false);
    CHECK(cuda.api().cuStreamDestroy(engine) == success);
  }
  Blocks(const Blocks&) = delete;
  Blocks& operator=(const Blocks&) = delete;

  static FakeCuda& with_free_mib(FakeCuda& cuda, std::uint64_t mib) {
    cuda.set_free_bytes(mib << 20);
    return cuda;
  }
  // The engine has a step that does not end, not that of any op.
  void begin_step() {
    cuda.hold(engine, true);
    cuda.add_work(engine, [] {});
    rig.backend().record_step(1, reinterpret_cast<std::uintptr_t>(engine));
  }
  void copy(Direction direction) {
    cuda.forget_copies();
    CHECK(rig.copy(direction, ids, ids) == ids.size() << 20);
  }
  // The same, and checks every byte.
  void copy_and_check(Direction direction) {
    cuda.forget_copies();
    auto want = rig.contents();
    rig.expect(want, rig.now(), direction, ids, ids);
    CHECK(rig.copy(direction, ids, ids) == ids.size() << 20);
    rig.check(want);
  }
  // The most bytes that the last op had in one stream before others had a turn. One copy came behind the other.
  [[nodiscard]] std::uint64_t longest_turn() const {
    CHECK(cuda.are_copies_in_order());
    std::uint64_t longest = 0;
    std::uint64_t bytes = 0;
    Stream last = nullptr;
    for (const FakeCuda::Copied& each : cuda.copies()) {
      bytes = each.stream == last ? bytes + each.bytes : each.bytes;
      last = each.stream;
      longest = std::max(longest, bytes);
    }
    return longest;
  }

  [[nodiscard]] std::size_t num_streams() const {  // that the last op's copies were in
    std::set<Stream> streams;
    for (const FakeCuda::Copied& each : cuda.copies()) streams.insert(each.stream);
    return streams.size();
  }

  FakeCuda& cuda;
  GpuRig rig;
  const Ids ids;
  Stream engine = cuda.make_stream();
};

// Stages hold 32 blocks; 4 are the least of a batch. A store's grow threefold, a load's are two thirds of what is left;
// where both directions copy there is one of each stage, if an edge covers what that takes.
void batches_beside_the_engine_grow_or_are_few() {
  using Counts = std::pair<std::uint64_t, std::uint64_t>;  // of batches, of blocks that go straight
  for (const bool has_edge : {true, false}) {
    Choices choices(std::uint64_t{4});
    FakeCuda cuda(4);
    Blocks blocks(cuda, choices, MechanismKind::staged, 60, 256, has_edge);
    const auto counts = [&](Direction direction) {
      const std::uint64_t launches = cuda.num_calls("cuLaunchKernel");
      const std::uint64_t straight = cuda.num_calls("cuMemcpy2DAsync");
      blocks.copy_and_check(direction);
      return Counts(cuda.num_calls("cuLaunchKernel") - launches, cuda.num_calls("cuMemcpy2DAsync") - straight);
    };
    const auto expected = [has_edge](Counts with, std::uint64_t batches_without) {
      return has_edge ? with : Counts(batches_without, 0);
    };
    CHECK(counts(Direction::store) == expected({3, 1}, 3));
    CHECK(counts(Direction::load) == expected({3, 1}, 3));
    blocks.begin_step();
    CHECK(counts(Direction::store) == expected({4, 3}, 4));
    CHECK(counts(Direction::load) == expected({4, 3}, 4));
    const std::uint64_t launches = cuda.num_calls("cuLaunchKernel");
    std::thread load([&] { (void)blocks.rig.copy(Direction::load, {0}, {0}, 1); });
    cuda.await_calls("cuLaunchKernel", launches + 1);  // behind the step
    CHECK(counts(Direction::store) == expected({2, 12}, 3));
    cuda.hold(blocks.engine, false);
    load.join();
  }
}

void long_ops_through_stages_take_turns_beside_the_engine() {
  for (const MechanismKind kind : {MechanismKind::staged, MechanismKind::mixed}) {
    Choices choices(std::uint64_t{3});
    FakeCuda cuda(3);
    Blocks blocks(cuda, choices, kind, 68);
    for (const bool is_beside_work : {false, true}) {
      if (is_beside_work) blocks.begin_step();
      for (const Direction direction : {Direction::load, Direction::store}) {
        is_beside_work ? blocks.copy_and_check(direction) : blocks.copy(direction);
        // What goes straight is in whatever turn there is: three blocks of the edge, and one of each two of a mixture.
        const std::uint64_t most = turn_bytes.beside_work + (std::uint64_t{3} << 20);
        CHECK(is_beside_work ? blocks.longest_turn() <= most : blocks.longest_turn() == blocks.ids.size() << 20);
      }
    }
  }
}

// In the stage's stream, on the way there or on the way back.
void an_op_that_fails_at_a_turn_leaves_nothing_behind(MechanismKind kind) {
  for (const Direction direction : {Direction::load, Direction::store}) {
    Choices choices(std::uint64_t{6});
    FakeCuda cuda(6);
    Blocks blocks(cuda, choices, kind, kind == MechanismKind::staged ? 37 : 69);
    LastMark sink;
    blocks.begin_step();
    for (const char* call : {"cuStreamWaitEvent", "cuEventRecord"}) {
      const std::uint64_t before = cuda.num_calls(call);
      (void)blocks.rig.copy(direction, blocks.ids, blocks.ids);
      const std::uint64_t all = cuda.num_calls(call) - before;
      std::size_t num_failed = 0;
      const std::uint64_t tried = std::min<std::uint64_t>(all, 7);  // the turn is among the last
      for (std::uint64_t nth = all - tried; nth < all; ++nth) {
        cuda.fail(call, nth + 1);
        try {
          (void)blocks.rig.copy(direction, blocks.ids, blocks.ids);
        } catch (const Error&) {
          ++num_failed;
        }
        CHECK(cuda.is_idle(blocks.engine));
      }
      cuda.fail("none", 1);                          // the last one may have been too late
      CHECK(tried >= 2 && 2 * num_failed >= tried);  // how many calls there are depends on when is looked
    }
    blocks.copy_and_check(direction);
    CHECK(blocks.num_streams() == 2);
    (void)blocks.rig.copy_in_parts(blocks.ids, blocks.ids, sink);
  }
}

void long_ops_of_the_copy_engine_alone_take_turns() {
  for (const auto& [kind, count] : {std::pair{MechanismKind::strided, 97}, {MechanismKind::batched, 34}}) {
    Choices choices(std::uint64_t{5});
    FakeCuda cuda(5);
    Blocks blocks(cuda, choices, kind, count);
    std::set<Stream> begun_in;
    for (const bool is_beside_work : {false, true}) {
      if (is_beside_work) blocks.begin_step();
      for (const Direction direction : {Direction::load, Direction::store}) {
        is_beside_work ? blocks.copy_and_check(direction) : blocks.copy(direction);
        begun_in.insert(cuda.copies().front().stream);
        const std::uint64_t all = blocks.ids.size() << 20;
        const std::uint64_t most = is_beside_work ? turn_bytes.beside_work : turn_bytes.alone;
        CHECK(blocks.longest_turn() == std::min(most, all) && blocks.num_streams() == (all > most ? 2 : 1));
      }
    }
    CHECK(begun_in.size() == 2);  // the lanes' own, wherever the op before ended
  }
}

// The other direction needs both: the host waits until all is done, behind every second turn.
void with_two_stages_only_turns_are_in_one_stream() {
  for (const Direction direction : {Direction::load, Direction::store}) {
    Choices choices(std::uint64_t{5});
    FakeCuda cuda(5);
    Blocks blocks(cuda, choices, MechanismKind::strided, 65, 2);
    blocks.begin_step();
    blocks.copy_and_check(direction);
    CHECK(blocks.num_streams() == 1 && cuda.copies()[64].was_idle);
  }
}

// By the copy engine alone, but for loads by layers; what both lanes' own streams are to do waits.
struct HeldLanes : Blocks {
  HeldLanes(FakeCuda& fake, Choices& choices) : Blocks(fake, choices, MechanismKind::strided, 65) {
    copy(Direction::load);
    loads = cuda.copies().front().stream;
    copy(Direction::store);
    stores = cuda.copies().front().stream;
    begin_step();
    cuda.hold(loads, true);
    cuda.hold(stores, true);
    cuda.forget_copies();
  }
  void load_by_layers() { (void)rig.copy_in_parts(numbered(0, 8), numbered(0, 8), sink); }  // takes all stages it may

  Stream loads = nullptr;
  Stream stores = nullptr;
  LastMark sink;
};

// Until one comes free the host waits for the end of each turn.
void without_a_free_stage_turns_are_in_one_stream() {
  Choices choices(std::uint64_t{5});
  FakeCuda cuda(5);
  HeldLanes blocks(cuda, choices);
  constexpr std::uint64_t before_the_wait = 2 * turn_bytes.beside_work >> 20;
  std::thread load([&] { blocks.load_by_layers(); });
  cuda.await_copies(blocks.loads, StagePool::most_stages);  // it holds all of them
  const std::uint64_t copies = cuda.num_calls("cuMemcpy2DAsync");
  std::thread store([&] { (void)blocks.rig.copy(Direction::store, blocks.ids, blocks.ids); });
  cuda.await_calls("cuMemcpy2DAsync", copies + before_the_wait);
  cuda.await_calls("cuEventQuery", cuda.num_calls("cuEventQuery") + 40);
  CHECK(cuda.num_calls("cuMemcpy2DAsync") == copies + before_the_wait);
  cuda.hold(blocks.stores, false);
  store.join();
  CHECK(cuda.num_calls("cuMemcpy2DAsync") == copies + blocks.ids.size());
  cuda.hold(blocks.loads, false);
  load.join();
  blocks.copy_and_check(Direction::store);
  CHECK(blocks.num_streams() == 2);
}

void a_long_op_of_the_copy_engine_alone_leaves_the_other_direction_all_stages_but_one() {
  Choices choices(std::uint64_t{5});
  FakeCuda cuda(5);
  HeldLanes blocks(cuda, choices);
  const std::uint64_t copies = cuda.num_calls("cuMemcpy2DAsync");
  std::thread store([&] { (void)blocks.rig.copy(Direction::store, blocks.ids, blocks.ids); });
  cuda.await_calls("cuMemcpy2DAsync", copies + blocks.ids.size());
  for (const std::int64_t num_left : {StagePool::most_stages - 1, StagePool::most_stages}) {
    std::thread load([&] { blocks.load_by_layers(); });
    cuda.await_copies(blocks.loads, num_left);
    cuda.await_calls("cuEventQuery", cuda.num_calls("cuEventQuery") + 40);
    CHECK(std::ranges::count(cuda.copies(), blocks.loads, &FakeCuda::Copied::stream) == num_left);
    cuda.hold(blocks.stores, false);
    if (store.joinable()) store.join();
    cuda.hold(blocks.loads, false);
    load.join();
    cuda.hold(blocks.loads, true);
    cuda.forget_copies();
  }
  cuda.hold(blocks.loads, false);
}

// Who holds all of them gives one back as soon as a copy of its ends.
void a_long_op_of_the_copy_engine_alone_asks_for_a_stage_where_none_is_free() {
  Choices choices(std::uint64_t{5});
  FakeCuda cuda(5);
  Blocks blocks(cuda, choices, MechanismKind::strided, 97);
  GpuShared shared(cuda.api(), 0, blocks.rig.map().layout, 1 << 20);
  GpuLane lane(std::shared_ptr<GpuShared>(&shared, [](GpuShared*) {}), Direction::store);
  std::vector<std::byte> host(blocks.ids.size() << 20);
  const HostShard shard = {host.data(), 1 << 20, 97};
  const CopyOp op = {shared.map, shard, blocks.ids, blocks.ids, shared.map.whole()};
  cuda.forget_copies();
  (void)lane.copy(MechanismKind::strided, op.blocks_at(0, 1));
  const Stream own = cuda.copies().front().stream;
  shared.steps.record(1, blocks.engine);
  cuda.hold(blocks.engine, true);
  cuda.add_work(blocks.engine, [] {});
  shared.steps.record(2, blocks.engine);
  shared.stages.begin(0, StageUse::all);
  std::vector<GpuStage*> taken;
  for (std::size_t i = 0; i < shared.stages.num_stages(); ++i) taken.push_back(shared.stages.take(0, no_limit));
  cuda.hold(own, true);
  cuda.forget_copies();
  std::thread store([&] {
    shared.device.enter();
    (void)lane.copy(MechanismKind::strided, op);
  });
  cuda.await_copies(own, 64);
  CHECK(shared.stages.holds_too_many(0));
  shared.stages.give_back(0, taken.back());
  taken.pop_back();
  cuda.hold(own, false);
  store.join();
  CHECK(blocks.num_streams() == 2 && !shared.stages.holds_too_many(0));
  for (GpuStage* stage : taken) shared.stages.give_back(0, stage);
  shared.stages.end(0);
}

// The engine computes on it: it is about to copy what it computes with.
void a_load_by_layers_takes_turns() {
  Choices choices(std::uint64_t{4});
  FakeCuda cuda(4);
  Blocks blocks(cuda, choices, MechanismKind::staged, 68);
  LastMark sink;
  cuda.forget_copies();
  CHECK(blocks.rig.copy_in_parts(blocks.ids, blocks.ids, sink) == std::uint64_t{68} << 20);
  CHECK(blocks.longest_turn() <= turn_bytes.beside_work);
}

}  // namespace

int main() {
  a_turn_has_so_many_bytes_at_most();
  turns_are_shorter_beside_the_engine();
  what_goes_on_in_another_stream_comes_behind_all_before();
  batches_beside_the_engine_grow_or_are_few();
  long_ops_through_stages_take_turns_beside_the_engine();
  an_op_that_fails_at_a_turn_leaves_nothing_behind(MechanismKind::staged);
  an_op_that_fails_at_a_turn_leaves_nothing_behind(MechanismKind::strided);
  long_ops_of_the_copy_engine_alone_take_turns();
  without_a_free_stage_turns_are_in_one_stream();
  a_long_op_of_the_copy_engine_alone_leaves_the_other_direction_all_stages_but_one();
  with_two_stages_only_turns_are_in_one_stream();
  a_long_op_of_the_copy_engine_alone_asks_for_a_stage_where_none_is_free();
  a_load_by_layers_takes_turns();
  std::puts("test_gpu_turns: ok");
}
