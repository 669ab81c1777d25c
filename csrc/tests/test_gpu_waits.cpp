// Waits for the GPU: how they sleep, what ends them, and that no wait for a step keeps stages from the other direction.
#include <array>
#include <chrono>
#include <thread>

#include "cuda/gpu_wait.h"
#include "cuda/stage_pool.h"
#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"
#include "tests/held_engine.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

using namespace std::chrono_literals;

void sleeps_are_short_at_first_and_grow_with_the_wait() {
  for (const Looks looks : {Looks::close, Looks::early, Looks::leisurely}) {
    const nanoseconds first = looks == Looks::close ? 1us : looks == Looks::early ? 5us : 50us;
    nanoseconds waited{0};
    nanoseconds before{0};
    std::size_t num_looks = 1;
    for (; waited < 60s; ++num_looks) {
      const nanoseconds sleep = sleep_after(looks, num_looks, waited);
      if (looks != Looks::leisurely && num_looks <= 24) CHECK(sleep == first);
      CHECK(sleep >= before && sleep >= first && sleep <= 1ms);
      if (waited > 1ms) CHECK(sleep <= waited / 8);
      before = sleep;
      waited += sleep;
    }
    CHECK(before == 1ms && num_looks < 60'200);
  }
  std::size_t num_looks = 1;  // a stage of 32 MiB
  for (nanoseconds waited{0}; waited < 600us; ++num_looks) waited += sleep_after(Looks::leisurely, num_looks, waited);
  CHECK(num_looks <= 14);
}

void a_wait_ends_with_what_it_waits_for_or_at_its_limit() {
  int num_looks = 0;
  CHECK(wait_until([&] { return ++num_looks == 40; }, Looks::close, no_limit) && num_looks == 40);
  CHECK(!wait_until([] { return false; }, Looks::leisurely, 0ns));
  CHECK(!wait_until([] { return false; }, Looks::close, 3ms));
  CHECK_THROWS(wait_until([]() -> bool { throw Error(1, "x"); }, Looks::close, no_limit), Error);
}

void the_next_stage_is_slept_for_most_of_the_time_that_the_last_ones_took() {
  constexpr std::uint64_t stage = 1000;
  StagePace pace;
  WaitClock::time_point now{1h};
  pace.begin(now);
  const auto first_sleep = [&](auto at, std::uint64_t bytes) { return pace.first_sleep(at, bytes, Looks::early); };
  CHECK(first_sleep(now, stage) == 0ns);  // nothing is known
  now += 600us;
  pace.ended(now, stage);
  CHECK(first_sleep(now, 2 * stage) == 450us && first_sleep(now + 400us, 2 * stage) == 50us);
  CHECK(pace.first_sleep(now, 2 * stage, Looks::leisurely) == 540us);
  CHECK(pace.first_sleep(now, 2 * stage, Looks::close) == 558us);
  CHECK(first_sleep(now, stage + stage / 2) == 225us);
  CHECK(first_sleep(now, 3 * stage) == 900us);      // one behind the next
  CHECK(first_sleep(now + 2ms, 2 * stage) == 0ns);  // due long since
  now += 1200us;
  pace.ended(now, 3 * stage);
  CHECK(first_sleep(now, 4 * stage) == 450us);
  now += 1h;
  pace.begin(now);  // another op: the time between them says nothing
  CHECK(first_sleep(now, stage) == 450us);
  for (std::uint64_t i = 1; i <= 4; ++i) {
    now += 800us;
    pace.ended(now, i * stage);
  }
  CHECK(first_sleep(now, 5 * stage) == 600us);  // what was before is long ago
  now += 1h;
  pace.ended(now, 5 * stage);
  CHECK(first_sleep(now, 6 * stage) == 1ms);
}

// A link that is twice as fast as it was is slept for too long at first; then ends are found by looks again, a few
// each.
void sleeps_follow_a_link_that_has_become_faster() {
  constexpr std::uint64_t stage = 1000;
  constexpr nanoseconds look = 50us;
  StagePace pace;
  WaitClock::time_point now{1h};
  pace.begin(now);
  for (std::uint64_t i = 1; i <= 4; ++i) pace.ended(now + i * 800us, i * stage);
  now += 4 * 800us;
  WaitClock::time_point due = now;
  int num_looks = 0;
  for (std::uint64_t i = 5; i <= 40; ++i) {
    due += 400us;
    if (due <= now) continue;  // there already: not waited for
    const nanoseconds slept = pace.first_sleep(now, i * stage, Looks::leisurely);
    now += slept;
    num_looks = 1;
    WaitClock::time_point end = end_during_sleep(now, slept);
    for (; now < due; ++num_looks) end = now, now += look;
    pace.ended(end, i * stage);
    CHECK(i < 16 || now - due <= look);
  }
  CHECK(num_looks <= 4);
}

// Else the sleep before the next end, which may come soon, would be too long by the time between two looks.
void an_end_that_a_look_finds_came_behind_the_look_before() {
  FakeCuda cuda(1);
  const GpuDevice device(cuda.api(), 0);
  device.enter();
  const GpuEvent end(device);
  Stream stream = cuda.make_stream();
  cuda.hold(stream, true);
  cuda.add_work(stream, [] {});
  end.record(stream);
  const std::uint64_t looks = cuda.num_calls("cuEventQuery");
  std::thread other([&] {
    cuda.await_calls("cuEventQuery", looks + 5);
    cuda.hold(stream, false);
  });
  constexpr std::uint64_t stage = 1'000'000'000;
  StagePace pace;
  pace.begin();
  CHECK(pace.wait(end, stage, Looks::early));
  const auto now = WaitClock::now();
  other.join();
  CHECK(pace.first_sleep(now - 4us, stage + 1, Looks::early) < 1us);  // looks are 5 us apart
  CHECK(cuda.api().cuStreamDestroy(stream) == success);
}

// A rig whose stages hold few blocks, and an engine's stream that is held in the step that was recorded.
struct HeldStep : HeldEngine {
  explicit HeldStep(std::uint64_t step) {
    cuda.add_work(engine, [this] { std::fill_n(rig.block(0, 0), 4096, std::byte{42}); });
    record_step(step);
  }

  const Ids low = numbered(0, 40);
  const Ids high = numbered(40, 40);
};

void a_load_runs_to_its_end_while_a_store_waits_for_a_step_that_does_not_end() {
  HeldStep held(7);
  const std::uint64_t looks = held.cuda.num_calls("cuEventQuery");
  std::thread store([&] { CHECK(held.rig.copy(Direction::store, held.low, held.low, 7) == 40 * 8192); });
  held.cuda.await_calls("cuEventQuery", looks + 3);  // it waits, and holds whatever it holds while it does
  auto want = held.rig.contents();
  held.rig.expect(want, held.rig.now(), Direction::load, held.high, held.high);
  CHECK(held.rig.copy(Direction::load, held.high, held.high) == 40 * 8192);
  held.rig.check(want);
  held.cuda.hold(held.engine, false);
  store.join();
  CHECK(held.rig.slot(0)[0] == std::byte{42} && held.rig.slot(0)[4095] == std::byte{42});
}

void a_store_whose_step_does_not_end_fails_and_has_put_nothing_on_the_device() {
  HeldStep held(7);
  held.rig.backend().set_start_limit(5ms);
  const std::uint64_t launches = held.cuda.num_calls("cuLaunchKernel");
  const auto before = held.rig.contents();
  std::string what;
  try {
    (void)held.rig.copy(Direction::store, held.low, held.low, 7);
  } catch (const Error& error) {
    what = error.what();
  }
  CHECK(what == "step 7 of the engine does not end on the device");
  CHECK(held.cuda.num_calls("cuLaunchKernel") == launches);
  held.rig.check(before);
  held.cuda.hold(held.engine, false);
  CHECK(held.rig.copy(Direction::store, held.low, held.low, 7) == 40 * 8192);
  CHECK(held.rig.slot(0)[0] == std::byte{42});
}

// What the device may still write is not let go at any bound.
void a_copy_on_the_device_is_waited_for_beyond_every_limit() {
  HeldStep held(7);
  held.rig.backend().set_start_limit(0ns);
  std::atomic<bool> has_ended = false;
  const std::uint64_t looks = held.cuda.num_calls("cuEventQuery");
  std::thread load([&] {
    CHECK(held.rig.copy(Direction::load, held.low, held.low, 7) == 40 * 8192);
    has_ended = true;
  });
  held.cuda.await_calls("cuEventQuery", looks + 60);
  CHECK(!has_ended);
  held.cuda.hold(held.engine, false);
  load.join();
}

void a_call_that_fails_is_told_of_only_when_what_came_before_it_has_ended() {
  HeldStep held(7);
  std::atomic<bool> has_ended = false;
  held.cuda.fail("cuLaunchKernel", 2);
  const std::uint64_t looks = held.cuda.num_calls("cuStreamQuery");
  std::thread load([&] {
    CHECK_THROWS(held.rig.copy(Direction::load, held.low, held.low, 7), Error);
    has_ended = true;
  });
  held.cuda.await_calls("cuStreamQuery", looks + 60);
  CHECK(!has_ended);
  held.cuda.hold(held.engine, false);
  load.join();
  held.rig.copy_and_check(Direction::load, held.low, held.low);
}

struct Entered {
  explicit Entered(const GpuDevice& device) { device.enter(); }
};

// By direction 0, all of them.
struct TakenStages {
  TakenStages() {
    pool.begin(0, StageUse::all);
    for (std::size_t i = 0; i < pool.num_stages(); ++i) taken.push_back(pool.take(0, 0ns));
  }
  FakeCuda cuda{1};
  const GpuDevice device{cuda.api(), 0};
  Entered entered{device};
  StagePool pool{device, 4096};
  std::vector<GpuStage*> taken;
};

void a_direction_that_gets_no_stage_says_so_at_its_limit() {
  TakenStages stages;
  StagePool& pool = stages.pool;
  std::vector<GpuStage*>& taken = stages.taken;
  CHECK(pool.take(0, no_limit) == nullptr);  // it has some itself
  CHECK(!pool.are_shared());
  pool.begin(1, StageUse::all);
  CHECK(pool.are_shared());
  CHECK_THROWS(pool.take(1, 2ms), Error);
  std::thread other([&] { pool.give_back(0, taken.front()); });
  GpuStage* const stage = pool.take(1, 60s);
  other.join();
  CHECK(stage == taken.front());
  pool.give_back(1, stage);
  for (std::size_t i = 1; i < taken.size(); ++i) pool.give_back(0, taken[i]);
  pool.end(0);
  pool.end(1);
}

void a_direction_that_wants_one_stream_leaves_the_other_all_stages_but_one() {
  TakenStages stages;
  StagePool& pool = stages.pool;
  std::vector<GpuStage*>& taken = stages.taken;
  pool.begin(1, StageUse::one_stream);
  CHECK(pool.try_take(1) == nullptr && pool.holds_too_many(0) && !pool.are_shared());
  pool.give_back(0, taken.back());
  CHECK(!pool.holds_too_many(0) && pool.take(0, 0ns) == nullptr);
  GpuStage* const stage = pool.try_take(1);
  CHECK(stage == taken.back());
  taken.pop_back();
  pool.give_back(1, stage);
  pool.end(1);
  taken.push_back(pool.take(0, 0ns));
  CHECK(taken.back() == stage);
  for (GpuStage* each : taken) pool.give_back(0, each);
  pool.end(0);
}

}  // namespace

int main() {
  sleeps_are_short_at_first_and_grow_with_the_wait();
  a_wait_ends_with_what_it_waits_for_or_at_its_limit();
  sleeps_follow_a_link_that_has_become_faster();
  the_next_stage_is_slept_for_most_of_the_time_that_the_last_ones_took();
  an_end_that_a_look_finds_came_behind_the_look_before();
  a_load_runs_to_its_end_while_a_store_waits_for_a_step_that_does_not_end();
  a_store_whose_step_does_not_end_fails_and_has_put_nothing_on_the_device();
  a_copy_on_the_device_is_waited_for_beyond_every_limit();
  a_call_that_fails_is_told_of_only_when_what_came_before_it_has_ended();
  a_direction_that_gets_no_stage_says_so_at_its_limit();
  a_direction_that_wants_one_stream_leaves_the_other_all_stages_but_one();
  std::puts("test_gpu_waits: ok");
  return 0;
}
