// Which mechanism an op gets, and how that is measured, over a CUDA driver in software.
#include <array>
#include <atomic>
#include <functional>
#include <numeric>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/copy_times.h"
#include "cuda/copy_tuner.h"
#include "cuda/host_runs.h"
#include "tests/check.h"
#include "tests/fake_cuda.h"
#include "tests/gpu_rig.h"
#include "tests/held_engine.h"

using namespace flexkv;
using namespace flexkv::cuda;

namespace {

constexpr std::uint64_t few_bytes = std::uint64_t{2} << 20;
constexpr TunerLimits no_hurry = {std::chrono::milliseconds(60000), 1 << 20, 1 << 20};

double& of(CellFigures& figures, MechanismKind kind) { return figures[static_cast<std::size_t>(kind)]; }

void a_mechanism_is_changed_only_for_a_clear_gain() {
  CellFigures figures{};
  CHECK(best_of(figures, MechanismKind::staged, Beside::nothing) == MechanismKind::staged);
  of(figures, MechanismKind::batched) = 1;  // without the usual one's there is nothing to compare with
  CHECK(best_of(figures, MechanismKind::staged, Beside::nothing) == MechanismKind::staged);
  of(figures, MechanismKind::staged) = 100;
  of(figures, MechanismKind::batched) = 96;
  CHECK(best_of(figures, MechanismKind::staged, Beside::nothing) == MechanismKind::staged);
  of(figures, MechanismKind::batched) = 94;
  CHECK(best_of(figures, MechanismKind::staged, Beside::nothing) == MechanismKind::batched);
  of(figures, MechanismKind::zero_copy) = 60;
  CHECK(best_of(figures, MechanismKind::staged, Beside::nothing) == MechanismKind::zero_copy);
  of(figures, MechanismKind::strided) = 59;
  CHECK(best_of(figures, MechanismKind::staged, Beside::nothing) == MechanismKind::strided);
  CHECK(best_of(figures, MechanismKind::direct, Beside::nothing) == MechanismKind::direct);
}

void no_kernel_reads_the_host_beside_a_busy_engine() {
  CellFigures figures{};
  of(figures, MechanismKind::staged) = 100;
  of(figures, MechanismKind::zero_copy) = 10;
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_tiny) == MechanismKind::staged);
  of(figures, MechanismKind::strided) = 80;
  for (const Beside beside : {Beside::work_and_tiny, Beside::work_and_short, Beside::work_and_long}) {
    CHECK(best_of(figures, MechanismKind::staged, beside) == MechanismKind::strided);
  }
}

void beside_a_busy_engine_the_copy_engine_alone_is_preferred() {
  CellFigures figures{};
  of(figures, MechanismKind::staged) = 100;
  of(figures, MechanismKind::zero_copy) = 10;
  of(figures, MechanismKind::batched) = 130;
  of(figures, MechanismKind::strided) = 120;
  CHECK(best_of(figures, MechanismKind::staged, Beside::nothing) == MechanismKind::zero_copy);
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_tiny) == MechanismKind::strided);
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_short) == MechanismKind::staged);
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_long) == MechanismKind::staged);
  of(figures, MechanismKind::strided) = 160;
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_tiny) == MechanismKind::batched);
  of(figures, MechanismKind::batched) = 151;
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_tiny) == MechanismKind::staged);
  of(figures, MechanismKind::strided) = 104;
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_short) == MechanismKind::strided);
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_long) == MechanismKind::strided);
  of(figures, MechanismKind::direct) = 90;  // faster, and without a kernel itself
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_tiny) == MechanismKind::direct);
}

void beside_a_busy_engine_long_ops_are_mixed_where_the_copy_engine_alone_is_too_slow() {
  CellFigures figures{};
  of(figures, MechanismKind::staged) = 100;
  of(figures, MechanismKind::strided) = 112;
  of(figures, MechanismKind::mixed) = 104;
  CHECK(best_of(figures, MechanismKind::staged, Beside::nothing) == MechanismKind::staged);
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_tiny) == MechanismKind::strided);
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_short) == MechanismKind::staged);
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_long) == MechanismKind::mixed);
  of(figures, MechanismKind::strided) = 104;
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_long) == MechanismKind::strided);
  of(figures, MechanismKind::strided) = 160;
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_tiny) == MechanismKind::staged);
  of(figures, MechanismKind::mixed) = 106;
  CHECK(best_of(figures, MechanismKind::staged, Beside::work_and_long) == MechanismKind::staged);
}

void an_op_belongs_to_the_cell_of_its_size_and_runs() {
  const auto cell = [](std::vector<std::int64_t> slots) { return cell_of(Direction::store, slots); };
  const auto run = [](std::int64_t first, std::size_t count) {
    std::vector<std::int64_t> slots(count);
    std::iota(slots.begin(), slots.end(), first);
    return slots;
  };
  CHECK(cell({5}).size == 0 && !cell({5}).is_scattered && cell({5}).direction == Direction::store);
  CHECK(cell({5, 9, 7}).size == 0 && cell({5, 9, 7}).is_scattered);
  CHECK(cell(run(0, 3)).size == 0 && !cell(run(0, 3)).is_scattered);
  CHECK(cell(run(0, 4)).size == 1 && cell(run(0, 15)).size == 1);
  CHECK(cell(run(0, 16)).size == 2 && cell(run(0, 63)).size == 2);
  CHECK(cell(run(0, 64)).size == 3 && cell(run(0, 999)).size == 3);
  CHECK(cell({0, 1, 2, 10, 11, 12, 20, 21, 22}).is_scattered);              // runs of three
  CHECK(!cell({0, 1, 2, 3, 10, 11, 12, 13, 20, 21, 22, 23}).is_scattered);  // of four
  for (std::size_t i = 0; i < CopyCell::count; ++i) CHECK(CopyCell::at(i).index() == i);
}

void figures_are_given_once_and_followed() {
  CopyFigures figures{};
  const CopyCell cell = {Direction::load, 1, true};
  of(figures[cell.index()], MechanismKind::staged) = 10;
  of(figures[cell.index()], MechanismKind::zero_copy) = 5;
  CopyChoices choices(MechanismKind::staged);
  CHECK(choices.choose(cell, Beside::nothing) == MechanismKind::staged && choices.give(figures));
  CHECK(choices.choose(cell, Beside::nothing) == MechanismKind::zero_copy);
  CHECK(choices.choose(cell, Beside::work_and_tiny) == MechanismKind::staged);
  CHECK(choices.choose({Direction::store, 1, true}, Beside::nothing) == MechanismKind::staged);
  CHECK(!choices.give({}) && !choices.begin_measuring());
  CHECK(choices.report().state == TuningState::given && choices.report().figures == figures);
  choices.force(MechanismKind::batched);
  CHECK(choices.choose(cell, Beside::nothing) == MechanismKind::batched);
}

// Copies that take so long on a still host, and how often they were asked for.
struct Host {
  std::optional<double> sample(MechanismKind kind) {
    ++num_samples[static_cast<std::size_t>(kind)];
    if (is_busy && is_busy(kind)) return std::nullopt;
    const bool is_disturbed = noise != nullptr && !noise->one_in(3);  // by up to as long again
    return of(still, kind) * (is_disturbed ? 1.0 + static_cast<double>(noise->below(1000)) / 1000 : 1.0);
  }
  std::optional<CellFigures> measure(AreIn& are_in, int num_before_it_is_over = 1000) {
    return times_in_turns(
        are_in, MechanismKind::staged, [this](MechanismKind kind) { return sample(kind); },
        [num = num_before_it_is_over]() mutable { return num-- == 0; });
  }

  CellFigures still{};
  Choices* noise = nullptr;
  std::function<bool(MechanismKind)> is_busy;
  std::array<int, num_mechanisms> num_samples{};
};

constexpr AreIn staged_strided_and_mixed = {true, false, true, false, false, true};

Host host_of(double staged_us, double strided_us, double mixed_us) {
  Host host;
  of(host.still, MechanismKind::staged) = staged_us;
  of(host.still, MechanismKind::strided) = strided_us;
  of(host.still, MechanismKind::mixed) = mixed_us;
  return host;
}

void a_still_host_is_measured_in_the_fewest_turns() {
  Host host = host_of(100, 160, 120);
  AreIn are_in = staged_strided_and_mixed;
  CHECK(host.measure(are_in) == host.still && are_in == staged_strided_and_mixed);
  CHECK((host.num_samples == std::array<int, num_mechanisms>{least_turns, 0, least_turns, 0, 0, least_turns}));
}

// Two copies of three are disturbed: by medians of three, mixed would be taken for about as fast as staged in a third
// of the histories.
void a_host_that_is_not_still_is_measured_until_times_are_reached_again() {
  int num_wrong = 0;
  int num_turns = 0;
  constexpr int num_histories = 1000;
  for (std::uint64_t seed = 1; seed <= num_histories; ++seed) {
    Choices noise(seed);
    Host host = host_of(100, 160, 120);
    host.noise = &noise;
    AreIn are_in = staged_strided_and_mixed;
    const CellFigures found = host.measure(are_in).value_or(CellFigures{});
    num_wrong += best_of(found, MechanismKind::staged, Beside::work_and_long) == MechanismKind::staged ? 0 : 1;
    num_turns += host.num_samples[0];
    CHECK(host.num_samples[0] <= most_turns);
  }
  CHECK(num_wrong <= 1 && num_turns > 10 * num_histories && num_turns < 13 * num_histories);
}

void what_is_far_slower_takes_no_more_turns_unless_it_is_the_usual_one() {
  Host host = host_of(100, 201, 199);
  AreIn are_in = staged_strided_and_mixed;
  CHECK(host.measure(are_in) == host.still);
  CHECK((are_in == AreIn{true, false, false, false, false, true}) && host.num_samples[2] == 2);
  Host other = host_of(500, 100, 300);
  are_in = staged_strided_and_mixed;
  CHECK(other.measure(are_in) == other.still);
  CHECK((are_in == AreIn{true, false, true, false, false, false}) && other.num_samples[0] == least_turns);
}

void copies_that_do_not_count_and_time_that_is_over_leave_no_figures() {
  Host host = host_of(100, 160, 120);
  host.is_busy = [](MechanismKind kind) { return kind == MechanismKind::mixed; };
  AreIn are_in = staged_strided_and_mixed;
  CellFigures without_mixed = host.still;
  of(without_mixed, MechanismKind::mixed) = 0;
  CHECK(host.measure(are_in) == without_mixed && host.num_samples[5] == most_turns);
  for (const auto& [num_samples, has_figures] : {std::pair{0, false}, {8, false}, {9, true}}) {
    Host soon = host_of(100, 160, 120);
    AreIn still_in = staged_strided_and_mixed;
    CHECK(soon.measure(still_in, num_samples).has_value() == has_figures);
  }
}

// All mechanisms that the layout allows have figures, and neither the engine's blocks nor its slots are touched.
void every_cell_is_measured_over_memory_of_its_own() {
  for (const bool in_one_tensor : {false, true}) {
    Choices choices(std::uint64_t{1});
    FakeCuda cuda(1);
    cuda.set_free_bytes(few_bytes);
    const std::uint64_t last_chunk = in_one_tensor ? 1024 : 2048;  // else tensors may be equally far apart by chance
    GpuRig rig(cuda, choices, {1024, 1024, last_chunk}, 20, 20, 0, in_one_tensor, no_hurry);
    const auto before = rig.contents();
    rig.use_host();
    rig.check(before);
    CHECK(cuda.is_idle());
    cuda.await_registered(1);
    const CopyChoices::Report report = rig.backend().choices().report();
    CHECK(report.state == TuningState::measured && report.why_not.empty());
    for (std::size_t i = 0; i < CopyCell::count; ++i) {
      CellFigures figures = report.figures[i];
      const CopyCell cell = CopyCell::at(i);
      const bool is_one_block_scattered = cell.size == 0 && cell.is_scattered;
      CHECK((of(figures, MechanismKind::staged) > 0) == !is_one_block_scattered);
      CHECK(of(figures, MechanismKind::direct) == 0);
      CHECK(in_one_tensor || of(figures, MechanismKind::strided) == 0);
      if (cell.size > 0 || is_one_block_scattered) continue;  // what is far too slow is left out of larger ones
      CHECK(of(figures, MechanismKind::batched) > 0 && of(figures, MechanismKind::zero_copy) > 0);
      CHECK((of(figures, MechanismKind::strided) > 0) == in_one_tensor);
    }
    // Once only: the next registration finds the figures.
    const std::uint64_t num_batches = cuda.num_calls("cuMemcpyBatchAsync");
    rig.leave_host();
    rig.use_host();
    CHECK(num_batches > 0 && cuda.num_calls("cuMemcpyBatchAsync") == num_batches);
  }
}

// As far apart as the engine's blocks and planes are, or nearly so.
void rows_are_measured_at_the_engines_pitch() {
  for (const std::uint64_t num_blocks : {20, 1000}) {
    Choices choices(std::uint64_t{1});
    FakeCuda cuda(1);
    cuda.set_free_bytes(few_bytes);
    GpuRig rig(cuda, choices, {1024, 1024, 1024, 1024}, num_blocks, 20, 16, true, no_hurry);  // slots in one piece
    rig.use_host();
    CHECK(rig.backend().choices().report().state == TuningState::measured);
    const std::uint64_t pitch = rig.map().plane_pitch_bytes;
    const std::uint64_t measured = cuda.last_device_pitch();
    CHECK(pitch == num_blocks * 1040 && measured % 4096 == pitch % 4096);
    CHECK(num_blocks == 20 ? measured == pitch : measured > 256 << 10 && measured < 512 << 10);
  }
}

// Such rows the driver takes one by one only, which is not what would be measured.
void planes_too_far_apart_for_a_copy_of_rows_are_not_regular() {
  for (const std::uint64_t pitch : {std::uint64_t{0x7ffffe00}, std::uint64_t{0x80000000}}) {
    FakeCuda cuda(1);
    cuda.set_free_bytes(few_bytes);
    const std::uint64_t base = std::uint64_t{1} << 40;
    const GpuShared shared(cuda.api(), 0, {8, {{base, 1024, 1024}, {base + pitch, 1024, 1024}}}, 4096);
    CHECK((shared.map.plane_pitch_bytes == pitch) == (pitch < 0x80000000) && shared.map.chunks_are_within_allocations);
  }
}

void large_blocks_are_measured_in_small_numbers() {
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(few_bytes);
  const TunerLimits limits = {std::chrono::milliseconds(60000), 512 << 10, 512 << 10};
  GpuRig rig(cuda, choices, {60 << 10, 60 << 10}, 8, 8, 0, false, limits);
  rig.use_host();
  const CopyChoices::Report report = rig.backend().choices().report();
  CHECK(report.state == TuningState::measured);
  const auto figure = [&](std::size_t size) {
    CellFigures figures = report.figures[CopyCell{Direction::load, size, false}.index()];
    return of(figures, MechanismKind::staged);
  };
  CHECK(figure(1) > 0 && figure(2) == figure(1) && figure(3) == figure(1));  // 4 blocks are all that may be copied
}

void what_cannot_be_measured_says_why_and_leaves_nothing_behind() {
  constexpr std::pair<const char*, std::uint64_t> faults[] = {
      {"cuMemAlloc", 1},    {"cuMemHostRegister", 2},  {"cuMemcpyHtoDAsync", 1}, {"cuLaunchKernel", 1},
      {"cuEventRecord", 1}, {"cuMemcpyBatchAsync", 1}, {"cuEventQuery", 1},
  };
  for (const auto& [call, nth] : faults) {
    Choices choices(std::uint64_t{1});
    FakeCuda cuda(1);
    cuda.set_free_bytes(few_bytes);
    GpuRig rig(cuda, choices, {1024, 1024}, 8, 8, 0, false, no_hurry);
    cuda.fail(call, nth);
    rig.use_host();
    const CopyChoices::Report report = rig.backend().choices().report();
    CHECK(cuda.has_failed() && report.state == TuningState::failed);
    CHECK(report.why_not.find("A_FAULT") != std::string::npos && report.figures == CopyFigures{});
    CHECK(cuda.is_idle());
    const Ids ids = {3, 1, 2};
    auto want = rig.contents();
    rig.expect(want, rig.now(), Direction::store, ids, ids);
    (void)rig.copy(Direction::store, ids, ids);
    rig.check(want);
  }
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(few_bytes);
  GpuRig rig(cuda, choices, {1 << 19, 1 << 19}, 2, 2, 0, false, {std::chrono::milliseconds(150), 512 << 10, 1 << 20});
  rig.use_host();
  CHECK(rig.backend().choices().report().why_not.find("a block has more than") != std::string::npos);
}

void without_time_nothing_is_measured_and_the_usual_way_stays() {
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(few_bytes);
  GpuRig rig(cuda, choices, {1024, 1024}, 8, 8, 0, false, {std::chrono::milliseconds(0), 1 << 20, 1 << 20});
  rig.use_host();
  const CopyChoices::Report report = rig.backend().choices().report();
  CHECK(report.state == TuningState::failed && report.figures == CopyFigures{} && !report.why_not.empty());
  CHECK(rig.backend().choices().choose({Direction::load, 3, true}, Beside::nothing) == MechanismKind::staged);
}

// With a step of the engine's that does not end, and memory that is registered and measured over.
struct BusyEngine : HeldEngine {
  BusyEngine() : HeldEngine({1024, 1024}, {.free_bytes = few_bytes, .limits = no_hurry}) {
    record_step(1);
    rig.use_host();
  }
};

// Copies beside which the engine's step runs do not count.
void nothing_is_concluded_beside_a_busy_engine() {
  BusyEngine busy;
  CHECK(busy.rig.backend().choices().report().figures == CopyFigures{});
  CHECK(busy.rig.backend().choices().report().state == TuningState::failed);  // so that nobody keeps this for later
}

// Whoever calls the driver would wait with it for all that the engine has the GPU do.
void memory_of_a_measurement_is_given_back_when_the_gpu_is_quiet() {
  for (const bool is_left_before : {false, true}) {
    BusyEngine busy;
    FakeCuda& cuda = busy.cuda;
    cuda.await_calls("cuEventQuery", cuda.num_calls("cuEventQuery") + 20);  // looks for quiet
    CHECK(cuda.num_registered() == 2 && cuda.num_calls("cuMemFree") == 0);
    if (is_left_before) busy.rig.leave_host();
    busy.go_on();
    cuda.await_registered(is_left_before ? 0 : 1);
    busy.rig.leave_host();
    CHECK(cuda.num_registered() == 0 && cuda.num_calls("cuMemFree") == 2);  // the blocks and their table
  }
}

// Figures that speak for a batch beside a busy engine, and for a kernel over the host's memory otherwise; and a step of
// the engine's, the first, that does not end while it is held.
struct HeldStep {
  HeldStep() {
    CopyFigures figures{};
    for (CellFigures& cell : figures) {
      of(cell, MechanismKind::staged) = 100;
      of(cell, MechanismKind::batched) = 80;
      of(cell, MechanismKind::zero_copy) = 50;
    }
    CHECK(rig.backend().choices().give(figures));
    rig.use_host();
    cuda.hold(engine, true);
    cuda.add_work(engine, [] {});
  }
  ~HeldStep() {
    cuda.hold(engine, false);
    CHECK(cuda.api().cuStreamDestroy(engine) == success);
  }
  HeldStep(const HeldStep&) = delete;
  HeldStep& operator=(const HeldStep&) = delete;
  void record_step() { rig.backend().record_step(1, reinterpret_cast<std::uintptr_t>(engine)); }
  MechanismKind kind(std::size_t num_blocks) { return rig.mechanism_for(Direction::store, numbered(0, num_blocks)); }

  static FakeCuda& with_few_bytes(FakeCuda& cuda) {
    cuda.set_free_bytes(few_bytes);
    return cuda;
  }

  Choices choices{std::uint64_t{1}};
  FakeCuda cuda{1};
  GpuRig rig{with_few_bytes(cuda), choices, {1024, 1024}, 400, 400};
  Stream engine = cuda.make_stream();
};

// The busy engine is asked for only where it matters; then the op takes the other way.
void an_op_beside_a_busy_engine_takes_the_way_for_that() {
  HeldStep held;
  for (const bool is_busy : {false, true}) {
    if (is_busy) held.record_step();
    const std::uint64_t num_kernels = held.cuda.num_calls("cuLaunchKernel");
    const std::uint64_t num_batches = held.cuda.num_calls("cuMemcpyBatchAsync");
    (void)held.rig.copy(Direction::store, {1, 5}, {2, 3});  // of no step: it need not wait
    CHECK(held.cuda.num_calls("cuLaunchKernel") == num_kernels + (is_busy ? 0 : 1));
    CHECK(held.cuda.num_calls("cuMemcpyBatchAsync") == num_batches + (is_busy ? 1 : 0));
  }
}

void figures_tell_of_ops_that_are_not_much_longer_than_what_was_measured() {
  HeldStep held;
  CHECK(held.kind(256) == MechanismKind::zero_copy && held.kind(257) == MechanismKind::staged);
  held.record_step();
  CHECK(held.kind(256) == MechanismKind::batched && held.kind(257) == MechanismKind::staged);
}

GpuLanes lanes_of(GpuShared& shared) {
  const std::shared_ptr<GpuShared> not_owned(&shared, [](GpuShared*) {});
  return {std::make_shared<GpuLane>(not_owned, Direction::load),
          std::make_shared<GpuLane>(not_owned, Direction::store)};
}

// A sample lies in one allocation and may be regular where the engine's planes are not: they lie in one each.
void nothing_is_measured_going_straight_that_cannot_in_service() {
  constexpr std::uint64_t chunk = std::uint64_t{16} << 10;
  constexpr std::uint64_t num_blocks = 70;
  for (const bool in_one_allocation : {false, true}) {
    Choices choices(std::uint64_t{1});
    FakeCuda cuda(1);
    cuda.set_free_bytes(std::uint64_t{64} << 20);
    GpuRig rig(cuda, choices, {chunk, chunk, chunk}, num_blocks, num_blocks, 0, true);
    const DeviceLayout& layout = rig.map().layout;
    for (const Plane& plane : layout.planes) {
      if (!in_one_allocation) cuda.add_allocation(plane.base, plane.base + num_blocks * chunk);
    }
    GpuShared shared(cuda.api(), 0, layout, 3 * chunk);
    CopyChoices chosen(MechanismKind::staged);
    tune(shared, lanes_of(shared), chosen, {}, {std::chrono::milliseconds(60000), 32 << 20, 32 << 20});
    CHECK(chosen.report().state == TuningState::measured);
    CHECK((cuda.num_calls("cuMemcpy2DAsync") > 0) == in_one_allocation);
  }
}

// The copy engine alone would stand still until the step is done: stages are filled meanwhile.
void a_short_load_behind_the_step_that_runs_fills_stages() {
  HeldStep held;
  held.record_step();
  const std::uint64_t num_kernels = held.cuda.num_calls("cuLaunchKernel");
  std::thread load([&] { (void)held.rig.copy(Direction::load, {1, 5}, {2, 3}, 1); });
  held.cuda.await_calls("cuLaunchKernel", num_kernels + 1);
  held.cuda.hold(held.engine, false);
  load.join();
}

// Ops of the engine's go on while it is measured, and are right.
void ops_run_beside_a_measurement() {
  for (std::uint64_t seed = 1; seed <= 5; ++seed) {
    Choices choices(seed);
    FakeCuda cuda(seed);
    cuda.set_free_bytes(few_bytes);
    GpuRig rig(cuda, choices, {1024, 1024}, 30, 30, 0, true, no_hurry);
    Ids low(15);
    Ids high(15);
    std::iota(low.begin(), low.end(), 0);
    std::iota(high.begin(), high.end(), 15);
    auto want = rig.contents();
    rig.expect(want, rig.now(), Direction::load, low, low);
    rig.expect(want, rig.now(), Direction::store, high, high);
    std::atomic<bool> ends = false;
    std::thread loads([&] {
      do (void)rig.copy(Direction::load, low, low);
      while (!ends);
    });
    std::thread stores([&] {
      do (void)rig.copy(Direction::store, high, high);
      while (!ends);
    });
    rig.use_host();
    ends = true;
    loads.join();
    stores.join();
    rig.check(want);
  }
}

// A registration that ends meanwhile does not wait for the whole measurement, and the next one measures.
void a_measurement_ends_with_its_registration() {
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(few_bytes);
  GpuRig rig(cuda, choices, {1024, 1024}, 8, 8, 0, false, no_hurry);
  std::stop_source ended;
  ended.request_stop();
  GpuShared shared(cuda.api(), 0, rig.map().layout, 4096);
  const GpuLanes lanes = lanes_of(shared);
  CopyChoices chosen(MechanismKind::staged);
  tune(shared, lanes, chosen, ended.get_token(), no_hurry);
  CHECK(chosen.report().state == TuningState::untuned);
  tune(shared, lanes, chosen, {}, no_hurry);
  CHECK(chosen.report().state == TuningState::measured && chosen.report().figures != CopyFigures{});
}

void layouts_that_are_copied_alike_have_one_class() {
  Choices choices(std::uint64_t{1});
  FakeCuda cuda(1);
  cuda.set_free_bytes(few_bytes);
  CHECK(GpuRig(cuda, choices, {1024, 1024, 1024}, 8, 8, 0, true).map().layout_class() == "3x1024-w16-regular8192");
  CHECK(GpuRig(cuda, choices, {1024, 36, 36}, 8, 8).map().layout_class() == "1x1024+2x36-w4");
  CHECK(GpuRig(cuda, choices, {17}, 8, 8).map().layout_class() == "1x17-w1");
  CHECK(GpuRig(cuda, choices, {1024, 1024}, 8, 8, 64, true).map().layout_class() == "2x1024-w16-regular512-s1088");
  std::vector<std::uint64_t> chunks(100);
  std::iota(chunks.begin(), chunks.end(), 1);
  const std::string many = GpuRig(cuda, choices, chunks, 2, 2).map().layout_class();
  std::swap(chunks[90], chunks[91]);
  const std::string others = GpuRig(cuda, choices, chunks, 2, 2).map().layout_class();
  CHECK(many.size() < 100 && others.size() == many.size() && many != others);
}

}  // namespace

int main() {
  a_mechanism_is_changed_only_for_a_clear_gain();
  no_kernel_reads_the_host_beside_a_busy_engine();
  beside_a_busy_engine_the_copy_engine_alone_is_preferred();
  beside_a_busy_engine_long_ops_are_mixed_where_the_copy_engine_alone_is_too_slow();
  an_op_belongs_to_the_cell_of_its_size_and_runs();
  figures_are_given_once_and_followed();
  a_still_host_is_measured_in_the_fewest_turns();
  a_host_that_is_not_still_is_measured_until_times_are_reached_again();
  what_is_far_slower_takes_no_more_turns_unless_it_is_the_usual_one();
  copies_that_do_not_count_and_time_that_is_over_leave_no_figures();
  every_cell_is_measured_over_memory_of_its_own();
  rows_are_measured_at_the_engines_pitch();
  planes_too_far_apart_for_a_copy_of_rows_are_not_regular();
  large_blocks_are_measured_in_small_numbers();
  what_cannot_be_measured_says_why_and_leaves_nothing_behind();
  without_time_nothing_is_measured_and_the_usual_way_stays();
  nothing_is_concluded_beside_a_busy_engine();
  memory_of_a_measurement_is_given_back_when_the_gpu_is_quiet();
  an_op_beside_a_busy_engine_takes_the_way_for_that();
  figures_tell_of_ops_that_are_not_much_longer_than_what_was_measured();
  nothing_is_measured_going_straight_that_cannot_in_service();
  a_short_load_behind_the_step_that_runs_fills_stages();
  ops_run_beside_a_measurement();
  a_measurement_ends_with_its_registration();
  layouts_that_are_copied_alike_have_one_class();
  std::puts("test_copy_tuner: ok");
  return 0;
}
