// Host memory and a CUDA driver in software: registered by several threads, in order as far as anyone is told, beside
// the threads that prefault it, and what the driver refuses is said.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda/host_registration.h"
#include "cuda/host_runs.h"
#include "tests/check.h"
#include "tests/gpu_rig.h"
#include "tests/held_engine.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

using namespace std::chrono_literals;

constexpr std::uint64_t gib = std::uint64_t{1} << 30;

// Addresses without memory.
class Addresses {
 public:
  explicit Addresses(std::uint64_t bytes)
      : bytes_(bytes), base_(::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0)) {
    CHECK(base_ != MAP_FAILED);
  }
  ~Addresses() { ::munmap(base_, bytes_); }
  Addresses(const Addresses&) = delete;
  Addresses& operator=(const Addresses&) = delete;
  [[nodiscard]] std::byte* base() const { return static_cast<std::byte*>(base_); }

 private:
  const std::uint64_t bytes_;
  void* const base_;
};

// What was said of a registration, in order.
class Told {
 public:
  std::function<void(const HostProgress&)> listener() {
    return [this](const HostProgress& progress) {
      const std::lock_guard lock(mutex_);
      all_.push_back(progress);
      changed_.notify_all();
    };
  }
  // Waits until memory has been refused.
  void wait_refused() {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, std::chrono::seconds(60),
                            [this] { return !all_.empty() && all_.back().unregistered_bytes > 0; }));
  }
  // Waits until so many bytes have been dealt with.
  HostProgress wait(std::uint64_t bytes) {
    std::unique_lock lock(mutex_);
    CHECK(changed_.wait_for(lock, 60s, [&] {
      return !all_.empty() && all_.back().registered_bytes + all_.back().unregistered_bytes >= bytes;
    }));
    CHECK(std::ranges::is_sorted(all_, {}, &HostProgress::num_slots));
    return all_.back();
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<HostProgress> all_;
};

// Nine pieces of a GiB, and a backend to register them with, that measures nothing.
struct Nine : HeldEngine {
  Nine() : HeldEngine({4096}) { rig.backend().choices().force(MechanismKind::staged); }

  std::unique_ptr<HostRegistration> begin() { return rig.backend().use_host(shard, told.listener()); }
  // The engine has a step from now on that does not end until `go_on`.
  void keep_busy() {
    cuda.add_work(engine, [] {});
    record_step(1);
  }

  Addresses addresses{9 * gib};
  HostShard shard{addresses.base(), gib, 9};
  Told told;  // outlives the registration
};

void all_pieces_are_registered_and_told_of_in_order() {
  Nine nine;
  CHECK(slots_per_piece(gib) == 1);
  auto registration = nine.begin();
  const HostProgress all = nine.told.wait(9 * gib);
  CHECK(all.num_slots == 9 && all.is_complete && all.registered_bytes == 9 * gib && all.unregistered_bytes == 0 &&
        all.error.empty());
  CHECK(nine.cuda.num_registered() == 9);
  registration.reset();
  CHECK(nine.cuda.num_registered() == 0 && nine.cuda.num_calls("cuMemHostUnregister") == 9);
}

// Threads make pages present beside each other, and whose piece is first is registered first.
void slots_are_usable_up_to_the_first_piece_that_is_not_settled() {
  Settled settled(4);
  CHECK(settled.add(2) == 0 && settled.add(1) == 0);
  CHECK(settled.add(0) == 3 && settled.add(3) == 4);
}

// What becomes of nine pieces one of which the driver does not take. Eight are ours to let go.
HostProgress progress_when_one_fails(Result result) {
  Nine nine;
  nine.cuda.fail("cuMemHostRegister", 3, result);
  auto registration = nine.begin();
  const HostProgress all = nine.told.wait(9 * gib);
  CHECK(all.num_slots == 9 && all.is_complete && nine.cuda.num_registered() == 8);
  registration.reset();
  CHECK(nine.cuda.num_registered() == 0 && nine.cuda.num_calls("cuMemHostUnregister") == 8);
  return all;
}

void what_the_driver_refuses_is_usable_and_said() {
  const HostProgress all = progress_when_one_fails(FakeCuda::failure);
  CHECK(all.registered_bytes == 8 * gib && all.unregistered_bytes == gib);
  CHECK(all.error == "cuMemHostRegister: A_FAULT");
}

void what_somebody_else_has_registered_is_left_to_him() {
  const HostProgress all = progress_when_one_fails(error_host_memory_already_registered);
  CHECK(all.registered_bytes == 9 * gib && all.unregistered_bytes == 0 && all.error.empty());
}

void a_thread_that_cannot_use_the_device_registers_nothing_and_says_so() {
  Nine nine;
  nine.cuda.fail("cuCtxSetCurrent", 1);
  nine.cuda.on_register([&nine](void*) { nine.told.wait_refused(); });  // the others leave it a piece
  auto registration = nine.begin();
  const HostProgress all = nine.told.wait(9 * gib);
  CHECK(all.num_slots == 9 && all.unregistered_bytes >= gib && !all.error.empty());
}

void a_registration_that_ends_early_waits_for_what_is_being_registered() {
  Nine nine;
  std::mutex mutex;
  std::condition_variable changed;
  bool may_go_on = false;
  nine.cuda.on_register([&](void*) {
    std::unique_lock lock(mutex);
    CHECK(changed.wait_for(lock, 60s, [&] { return may_go_on; }));
  });
  auto registration = nine.begin();
  std::thread end([&] { registration.reset(); });
  {
    const std::lock_guard lock(mutex);
    may_go_on = true;
  }
  changed.notify_all();
  end.join();
  CHECK(nine.cuda.num_registered() == 0);
}

// Registering faults pages in, as the pool's own threads do.
void a_pool_is_registered_while_it_is_prefaulted() {
  constexpr std::int64_t num_slots = 3 * 512 + 7;
  constexpr std::uint64_t slot_bytes = std::uint64_t{16} << 10;
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  GpuRig rig(cuda, choices, {4096}, 4, 4);
  rig.backend().choices().force(MechanismKind::staged);  // no memory to measure with is registered
  std::uint64_t sum = 0;
  std::mutex mutex;
  const HostPool pool({num_slots, {slot_bytes}, 3, false});
  cuda.on_register([&](void* piece) {
    std::uint64_t not_zero = 0;
    for (std::uint64_t at = 0; at < num_slots * slot_bytes; at += 4096) {
      not_zero += static_cast<std::uint64_t>(static_cast<const volatile std::byte*>(piece)[at] != std::byte{0});
    }
    const std::lock_guard lock(mutex);
    sum += not_zero;
  });
  Told told;
  const auto registration = rig.backend().use_host({pool.base(0), slot_bytes, num_slots}, told.listener());
  CHECK(told.wait(num_slots * slot_bytes).num_slots == num_slots);
  CHECK(pool.wait_prefaulted(num_slots, 60) && pool.prefault_error() == 0 && sum == 0);
}

// Calls that take 2 ms each: how many there were at once, and how long none was.
class Calls {
 public:
  std::function<void(void*)> counted() {
    return [this](void*) {
      begin();
      for (const auto end = WaitClock::now() + 2ms; WaitClock::now() < end;) std::this_thread::yield();
      end();
    };
  }
  [[nodiscard]] int most_at_once() const { return most_at_once_; }
  [[nodiscard]] nanoseconds shortest_pause() const { return shortest_pause_; }

 private:
  void begin() {
    const std::lock_guard lock(mutex_);
    most_at_once_ = std::max(most_at_once_, ++at_once_);
    if (num_ > 0) shortest_pause_ = std::min<nanoseconds>(shortest_pause_, WaitClock::now() - last_end_);
  }
  void end() {
    const std::lock_guard lock(mutex_);
    --at_once_;
    ++num_;
    last_end_ = WaitClock::now();
  }

  std::mutex mutex_;
  int at_once_ = 0;
  int most_at_once_ = 0;
  int num_ = 0;
  WaitClock::time_point last_end_{};
  nanoseconds shortest_pause_ = 1h;
};

// Each call keeps all others of the process waiting: they get a turn between two, the engine's work a longer one.
void pieces_are_dealt_with_one_at_a_time() {
  for (const bool is_busy : {false, true}) {
    Nine nine;
    if (is_busy) nine.keep_busy();
    Calls registering;
    Calls unregistering;
    nine.cuda.on_register(registering.counted());
    nine.cuda.on_unregister(unregistering.counted());
    auto registration = nine.begin();
    CHECK(nine.told.wait(9 * gib).is_complete && nine.cuda.num_registered() == 9);
    registration->let_go_gently({});
    CHECK(nine.cuda.num_registered() == 0);
    for (const Calls* calls : {&registering, &unregistering}) {
      CHECK(calls->most_at_once() == 1 && calls->shortest_pause() >= (is_busy ? nanoseconds(6ms) : nanoseconds(200us)));
    }
  }
}

// Who is in a hurry gets what is left at once; whoever ends the registration, too.
void a_hurry_ends_the_pauses() {
  Nine nine;
  auto registration = nine.begin();
  CHECK(nine.told.wait(9 * gib).is_complete);
  nine.keep_busy();
  std::stop_source hurry;
  nine.cuda.on_unregister([&](void*) { hurry.request_stop(); });
  registration->let_go_gently(hurry.get_token());
  CHECK(nine.cuda.num_registered() == 8);
  registration.reset();
  CHECK(nine.cuda.num_registered() == 0 && nine.cuda.num_calls("cuMemHostUnregister") == 9);
}

void a_registration_that_ends_waits_for_no_turn() {
  Nine nine;
  nine.keep_busy();
  std::atomic<int> count = 0;
  nine.cuda.on_register([&](void*) {
    for (const auto end = WaitClock::now() + 2ms; WaitClock::now() < end;) std::this_thread::yield();
    ++count;
  });
  auto registration = nine.begin();
  (void)nine.told.wait(gib);
  registration.reset();
  CHECK(count < 9 && nine.cuda.num_registered() == 0);
}

void the_engine_gets_three_times_as_long_as_it_waited() {
  CHECK(pause_after(0ns, 50ms) == 0ns && pause_after(2ms, 50ms) == 6ms && pause_after(16ms, 50ms) == 48ms);
  CHECK(pause_after(17ms, 50ms) == 50ms && pause_after(10s, 50ms) == 50ms && pause_after(2ms, 5ms) == 5ms);
}

// Between two steps of an engine that works the GPU is idle for a while.
void an_engine_between_two_steps_works() {
  Nine nine;
  const GpuDevice device(nine.cuda.api(), 0);
  device.enter();
  StepEvents steps(device);
  CHECK(!steps.has_worked_lately());
  nine.cuda.add_work(nine.engine, [] {});
  steps.record(1, nine.engine);
  CHECK(steps.is_engine_busy() && steps.has_worked_lately());
  nine.go_on();
  CHECK(wait_until([&] { return !steps.is_engine_busy(); }, Looks::close, 60s));
  CHECK(steps.has_worked_lately());
  CHECK(wait_until([&] { return !steps.has_worked_lately(); }, Looks::leisurely, 60s));
}

// The engine's thread that registers, tells of its steps and waits for a load may work with another GPU.
void who_visits_has_again_what_he_had() {
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(std::uint64_t{8} << 20);
  const Stream engine = cuda.make_stream();
  for (const Context before : {Context{nullptr}, FakeCuda::another_context()}) {
    std::thread([&] {
      if (before != nullptr) CHECK(cuda.api().cuCtxSetCurrent(before) == success);
      auto rig = std::make_unique<GpuRig>(cuda, choices, std::vector<std::uint64_t>{4096}, 4, 4);
      CHECK(FakeCuda::current_context() == before);
      LastMark mark;
      std::thread([&] { (void)rig->copy_in_parts({0}, {0}, mark); }).join();
      std::uint64_t step = 0;
      for (const Stream stream : {engine, FakeCuda::legacy_stream()}) {
        rig->backend().record_step(++step, reinterpret_cast<std::uintptr_t>(stream));
        rig->backend().make_wait(reinterpret_cast<std::uintptr_t>(stream), mark.last);
        CHECK(FakeCuda::current_context() == before);
      }
      rig->use_host();
      rig->leave_host();
      CHECK(FakeCuda::current_context() == before);
      rig.reset();
      CHECK(FakeCuda::current_context() == before);
      for (const char* call : {"cuModuleLoadData", "cuModuleGetFunction", "cuThreadExchangeStreamCaptureMode"}) {
        cuda.fail(call, 1);
        CHECK_THROWS(GpuRig(cuda, choices, {4096}, 4, 4), Error);
        CHECK(FakeCuda::current_context() == before);
      }
    }).join();
  }
  CHECK(cuda.api().cuStreamDestroy(engine) == success);
}

// The driver keeps whoever calls it waiting while it gets pages.
void pages_are_there_before_the_driver_asks_for_them() {
  constexpr std::uint64_t page = 4096;
  constexpr std::uint64_t bytes = 192 << 20;
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  {
    Choices choices(std::uint64_t{1});
    FakeCuda cuda(1);
    GpuRig rig(cuda, choices, {4096}, 4, 4);
    rig.backend().choices().force(MechanismKind::staged);
    std::atomic<std::uint64_t> missing = 0;
    cuda.on_register([&](void* piece) {
      std::vector<unsigned char> is_there((64 << 20) / page);
      CHECK(::mincore(piece, 64 << 20, is_there.data()) == 0);
      missing += static_cast<std::uint64_t>(std::ranges::count_if(is_there, [](auto each) { return each % 2 == 0; }));
    });
    Told told;
    const auto registration =
        rig.backend().use_host({static_cast<std::byte*>(memory), page, bytes / page}, told.listener());
    CHECK(told.wait(bytes).is_complete && cuda.num_registered() == 3 && missing == 0);
  }
  ::munmap(memory, bytes);
}

}  // namespace

int main() {
  all_pieces_are_registered_and_told_of_in_order();
  slots_are_usable_up_to_the_first_piece_that_is_not_settled();
  what_the_driver_refuses_is_usable_and_said();
  a_thread_that_cannot_use_the_device_registers_nothing_and_says_so();
  what_somebody_else_has_registered_is_left_to_him();
  a_registration_that_ends_early_waits_for_what_is_being_registered();
  a_pool_is_registered_while_it_is_prefaulted();
  pieces_are_dealt_with_one_at_a_time();
  a_hurry_ends_the_pauses();
  a_registration_that_ends_waits_for_no_turn();
  an_engine_between_two_steps_works();
  who_visits_has_again_what_he_had();
  the_engine_gets_three_times_as_long_as_it_waited();
  pages_are_there_before_the_driver_asks_for_them();
  std::puts("test_gpu_host: ok");
  return 0;
}
