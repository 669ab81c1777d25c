// How ops are cut: batches through stages, who launches their kernels, and segments of the copy engine's.
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/staged_copies.h"
#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"
#include "tests/held_engine.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

using Lengths = std::vector<std::size_t>;

constexpr std::uint64_t all_bytes = std::uint64_t{80} * 8192;  // of the rig's blocks

Lengths lengths(bool is_store, std::size_t left, std::size_t least, std::size_t most,
                std::size_t growth = BatchLengths::any_growth) {
  Lengths found;
  while (left > 0) {
    found.push_back(length_of_batch(is_store, found.empty() ? 0 : found.back(), left, {least, most, growth}));
    left -= found.back();
  }
  return found;
}

void batches_are_short_where_no_byte_moves_meanwhile() {
  CHECK((lengths(true, 64, 4, 16) == Lengths{4, 16, 16, 16, 12}));
  CHECK((lengths(false, 64, 4, 16) == Lengths{16, 16, 16, 12, 4}));
  CHECK((lengths(true, 10, 4, 16) == Lengths{4, 6}));
  CHECK((lengths(false, 10, 4, 16) == Lengths{6, 4}));
  for (const bool is_store : {false, true}) {
    CHECK((lengths(is_store, 3, 4, 16) == Lengths{3}));
    CHECK((lengths(is_store, 8, 4, 16) == Lengths{8}));
    CHECK((lengths(is_store, 5, 1, 1) == Lengths{1, 1, 1, 1, 1}));
    for (std::size_t left = 1; left < 200; ++left) {
      for (const std::size_t length : lengths(is_store, left, 4, 16)) CHECK(length - 1 < 16);
    }
  }
}

// Kernels run while the batch next to theirs is copied.
void batches_grow_towards_the_middle() {
  CHECK((lengths(true, 64, 4, 32, 2) == Lengths{4, 8, 16, 32, 4}));
  CHECK((lengths(false, 64, 4, 32, 2) == Lengths{32, 21, 7, 4}));
  CHECK((lengths(true, 64, 4, 32, 3) == Lengths{4, 12, 32, 16}));
  CHECK((lengths(false, 64, 4, 32, 3) == Lengths{32, 24, 8}));
  CHECK((lengths(true, 64, 32, 32, 3) == Lengths{32, 32}));
  for (const bool is_store : {false, true}) {
    for (std::size_t left = 1; left < 300; ++left) {
      const Lengths found = lengths(is_store, left, 4, 32, 3);
      std::size_t behind = left;
      for (std::size_t i = 0; i < found.size(); ++i) {
        behind -= found[i];
        CHECK(found[i] - 1 < 32);
        if (found[i] <= 8) continue;  // what is left of an op is not cut any more
        CHECK(is_store ? found[i] <= 3 * found[i - 1] : found[i] <= 3 * behind);
      }
    }
  }
}

// An engine's stream whose step, the first, does not end.
struct BusyEngine : HeldEngine {
  explicit BusyEngine(std::vector<std::uint64_t> chunks = {4096, 4096}, const HeldGpu& gpu = {})
      : HeldEngine(std::move(chunks), gpu) {
    cuda.add_work(engine, [] {});
    record_step(1);
    rig.backend().choices().force(MechanismKind::staged);
  }

  std::uint64_t launches(const std::string& kernels) {
    return cuda.launches(kernels + "gather").count + cuda.launches(kernels + "scatter").count;
  }

  const Ids ids = numbered(0, 80);
};

// Streams that wait for others are slow to go on beside large kernels (csrc/cuda/staged_copies.h).
void beside_the_engine_the_host_launches_a_loads_kernels_but_the_last() {
  BusyEngine busy;
  const auto waits_and_launches = [&](Direction direction) {
    const std::uint64_t waits = busy.cuda.num_calls("cuStreamWaitEvent");
    const std::uint64_t launches = busy.cuda.num_calls("cuLaunchKernel");
    busy.rig.randomize();
    auto want = busy.rig.contents();
    busy.rig.expect(want, busy.rig.now(), direction, busy.ids, busy.ids);
    CHECK(busy.rig.copy(direction, busy.ids, busy.ids) == all_bytes);
    busy.rig.check(want);
    return std::pair(busy.cuda.num_calls("cuStreamWaitEvent") - waits,
                     busy.cuda.num_calls("cuLaunchKernel") - launches);
  };
  const auto [load_waits, load_launches] = waits_and_launches(Direction::load);
  CHECK(load_launches > 4);
  CHECK(load_waits == 1);
  const auto [store_waits, store_launches] = waits_and_launches(Direction::store);
  CHECK(store_launches > 4);
  CHECK(store_waits == store_launches);
  busy.go_on();
  while (busy.cuda.api().cuStreamQuery(busy.engine) == error_not_ready) std::this_thread::yield();
  const auto [idle_waits, idle_launches] = waits_and_launches(Direction::load);
  CHECK(idle_launches == load_launches);
  CHECK(idle_waits == idle_launches);
}

// Kernels that run beside the engine's, where the GPU has them and the layout lets them.
void beside_the_engine_kernels_are_slim() {
  BusyEngine busy;
  const auto slim_launches = [&busy] {
    const std::uint64_t before = busy.launches("slim_");
    for (const Direction direction : {Direction::load, Direction::store}) {
      busy.rig.randomize();
      auto want = busy.rig.contents();
      busy.rig.expect(want, busy.rig.now(), direction, busy.ids, busy.ids);
      (void)busy.rig.copy(direction, busy.ids, busy.ids);
      busy.rig.check(want);
    }
    return busy.launches("slim_") - before;
  };
  CHECK(slim_launches() > 8);
  busy.go_on();
  while (busy.cuda.api().cuStreamQuery(busy.engine) == error_not_ready) std::this_thread::yield();
  CHECK(slim_launches() == 0);
}

void kernels_are_not_slim_where_gpu_or_layout_do_not_allow_that() {
  const auto check = [](std::vector<std::uint64_t> chunks, bool has_slim_kernels, const std::string& word) {
    BusyEngine busy(std::move(chunks), {.has_slim_kernels = has_slim_kernels});
    (void)busy.rig.copy(Direction::load, busy.ids, busy.ids);
    (void)busy.rig.copy(Direction::store, busy.ids, busy.ids);
    CHECK(busy.launches("slim_") == 0);
    CHECK(busy.cuda.launches("gather_" + word).count > 0 && busy.cuda.launches("scatter_" + word).count > 0);
  };
  check({4096, 4096}, false, "16");
  check({4100, 4100}, true, "4");
  check({512, 512}, true, "16");  // one thread moves too few bytes of such units
}

// One call of the driver for all pieces between a stage and the slots; for one piece, and before memory is registered,
// that of a copy.
void pieces_of_scattered_slots_go_as_one_batch() {
  HeldEngine idle;
  FakeCuda& cuda = idle.cuda;
  GpuRig& rig = idle.rig;
  rig.backend().choices().force(MechanismKind::staged);
  const Ids blocks = numbered(0, 80);
  Ids apart(80);  // 0, 2, ... 78, 1, 3, ... 79
  for (std::size_t i = 0; i < 80; ++i) apart[i] = static_cast<std::int64_t>(i < 40 ? 2 * i : 2 * i - 79);
  const auto batches_and_copies = [&](const Ids& slots, Direction direction) {
    const char* const copy = direction == Direction::store ? "cuMemcpyDtoHAsync" : "cuMemcpyHtoDAsync";
    const std::uint64_t batches = cuda.num_calls("cuMemcpyBatchAsync");
    const std::uint64_t copies = cuda.num_calls(copy);
    rig.copy_and_check(direction, slots, blocks);
    return std::pair(cuda.num_calls("cuMemcpyBatchAsync") - batches, cuda.num_calls(copy) - copies);
  };
  for (const Direction direction : {Direction::load, Direction::store}) {
    CHECK(batches_and_copies(apart, direction) == std::pair(std::uint64_t{0}, std::uint64_t{80}));
  }
  rig.use_host();
  for (const Direction direction : {Direction::load, Direction::store}) {
    const auto [batches, copies] = batches_and_copies(apart, direction);
    CHECK(batches > 4 && batches <= 40 && copies <= 1);
    const auto [batches_of_runs, runs] = batches_and_copies(blocks, direction);
    CHECK(batches_of_runs == 0 && runs == batches + copies);
  }
  for (const Direction direction : {Direction::load, Direction::store}) {
    cuda.fail("cuMemcpyBatchAsync", 3);
    CHECK_THROWS(rig.copy(direction, apart, blocks), Error);
    CHECK(cuda.is_idle());
    rig.copy_and_check(direction, apart, blocks);
  }
}

void slim_groups_are_as_many_as_the_bytes_want_and_the_gpu_has_room_for() {
  // Of the last slim kernel that the store of so many blocks takes.
  const auto groups_of_store = [](BusyEngine& busy, std::size_t count) {
    const std::uint64_t before = busy.cuda.launches("slim_gather").count;
    (void)busy.rig.copy(Direction::store, numbered(0, count), numbered(0, count));
    CHECK(busy.cuda.launches("slim_gather").count > before);
    return busy.cuda.launches("slim_gather").last_groups;
  };
  constexpr std::uint64_t free_bytes = std::uint64_t{96} << 20;  // stages of 16 MiB
  {
    BusyEngine busy(std::vector<std::uint64_t>(4, 8192), {.free_bytes = free_bytes});
    CHECK(groups_of_store(busy, 1) == 4);    // units
    CHECK(groups_of_store(busy, 8) == 16);   // of few bytes
    CHECK(groups_of_store(busy, 80) == 20);  // one for each 128 KiB
  }
  const std::vector<std::uint64_t> chunks(4, std::uint64_t{64} << 10);
  {
    BusyEngine busy(chunks, {.free_bytes = free_bytes});
    CHECK(groups_of_store(busy, 64) == 64);  // of a short op
  }
  {
    BusyEngine busy(std::vector<std::uint64_t>(32, std::uint64_t{64} << 10), {.free_bytes = free_bytes});
    CHECK(groups_of_store(busy, 74) == 128);  // 148 MiB
    const std::uint64_t copies = busy.cuda.num_calls("cuMemcpyHtoDAsync");
    std::thread load([&] { (void)busy.rig.copy(Direction::load, numbered(0, 1), numbered(0, 1), 1); });
    busy.cuda.await_calls("cuMemcpyHtoDAsync", copies + 1);
    CHECK(groups_of_store(busy, 74) == 64);  // while both directions copy
    busy.go_on();
    load.join();
  }
  BusyEngine small(chunks, {.free_bytes = free_bytes, .num_multiprocessors = 40});
  CHECK(groups_of_store(small, 64) == 20);  // one for two multiprocessors
}

// Also what the host launches comes behind the step that a load waits for.
void a_load_that_the_host_launches_waits_for_its_step() {
  BusyEngine busy;
  std::atomic<bool> has_ended = false;
  const auto before = busy.rig.contents();
  const std::uint64_t looks = busy.cuda.num_calls("cuEventQuery");
  std::thread load([&] {
    CHECK(busy.rig.copy(Direction::load, busy.ids, busy.ids, 1) == all_bytes);
    has_ended = true;
  });
  busy.cuda.await_calls("cuEventQuery", looks + 60);
  CHECK(!has_ended);
  busy.rig.check(before);
  busy.go_on();
  load.join();
  auto want = before;
  busy.rig.expect(want, {before.tensors, before.host}, Direction::load, busy.ids, busy.ids);
  busy.rig.check(want);
}

void stages_come_back_after_a_launch_that_fails() {
  for (const std::uint64_t number : {std::uint64_t{1}, std::uint64_t{2}, std::uint64_t{5}}) {
    BusyEngine busy;
    busy.cuda.fail("cuLaunchKernel", number);
    CHECK_THROWS(busy.rig.copy(Direction::load, busy.ids, busy.ids), Error);
    for (const Direction direction : {Direction::load, Direction::store}) {
      busy.rig.randomize();
      auto want = busy.rig.contents();
      busy.rig.expect(want, busy.rig.now(), direction, busy.ids, busy.ids);
      CHECK(busy.rig.copy(direction, busy.ids, busy.ids) == all_bytes);
      busy.rig.check(want);
    }
  }
}

// Copies of 72 MiB by the copy engine alone: the host waits for the end of each 32 MiB, not for the whole.
void the_copy_engine_moves_long_ops_in_segments() {
  constexpr std::uint64_t block_bytes = std::uint64_t{4} << 20;
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  GpuRig rig(cuda, choices, {block_bytes}, 18, 18);
  rig.backend().choices().force(MechanismKind::direct);
  const Ids slots = rig.some(18, 18, false);
  const Ids blocks = rig.some(18, 18, false);
  for (const Direction direction : {Direction::store, Direction::load}) {
    const std::uint64_t ends = cuda.num_calls("cuEventRecord");
    rig.copy_and_check(direction, slots, blocks);
    CHECK(cuda.num_calls("cuEventRecord") - ends == 3);
  }
  cuda.fail("cuEventRecord", 3);
  CHECK_THROWS(rig.copy(Direction::load, slots, blocks), Error);
  CHECK(cuda.is_idle());
  rig.copy_and_check(Direction::load, slots, blocks);
}

}  // namespace

int main() {
  batches_are_short_where_no_byte_moves_meanwhile();
  batches_grow_towards_the_middle();
  beside_the_engine_the_host_launches_a_loads_kernels_but_the_last();
  beside_the_engine_kernels_are_slim();
  kernels_are_not_slim_where_gpu_or_layout_do_not_allow_that();
  pieces_of_scattered_slots_go_as_one_batch();
  slim_groups_are_as_many_as_the_bytes_want_and_the_gpu_has_room_for();
  a_load_that_the_host_launches_waits_for_its_step();
  stages_come_back_after_a_launch_that_fails();
  the_copy_engine_moves_long_ops_in_segments();
  std::puts("test_gpu_batches: ok");
  return 0;
}
