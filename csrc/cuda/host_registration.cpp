#include "cuda/host_registration.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "cuda/host_runs.h"
#include "transfer/native_thread.h"
#include "transfer/populate.h"

namespace flexkv::cuda {
namespace {

std::size_t pieces_of(const HostShard& host) {
  const std::int64_t at_once = slots_per_piece(host.stride_bytes);
  return static_cast<std::size_t>((host.num_slots + at_once - 1) / at_once);
}

constexpr int pause_factor = 3;
constexpr std::chrono::microseconds breath{200};  // for dozens of calls of others: who knows whether the engine begins

}  // namespace

std::size_t Settled::add(std::size_t piece) {
  is_settled_[piece] = true;
  while (without_gap_ < is_settled_.size() && is_settled_[without_gap_]) ++without_gap_;
  return without_gap_;
}

nanoseconds pause_after(nanoseconds taken, nanoseconds longest) { return std::min(pause_factor * taken, longest); }

GpuHostRegistration::GpuHostRegistration(std::shared_ptr<GpuShared> shared, const HostShard& host,
                                         std::function<void(const HostProgress&)> progress,
                                         std::function<void(const std::stop_token& ends)> then)
    : shared_(std::move(shared)),
      host_(host),
      progress_(std::move(progress)),
      then_(std::move(then)),
      pieces_(pieces_of(host), Piece::waiting),
      settled_(pieces_.size()) {
  start_threads(&GpuHostRegistration::register_pieces);
  if (threads_.empty()) throw std::system_error(std::make_error_code(std::errc::resource_unavailable_try_again));
}

GpuHostRegistration::~GpuHostRegistration() {
  stop_registering();
  next_ = 0;
  if (std::ranges::count(pieces_, Piece::ours) > 1) start_threads(&GpuHostRegistration::unregister_pieces);
  unregister_pieces();
  for (std::thread& thread : threads_) thread.join();
}

void GpuHostRegistration::stop_registering() {
  ends_.request_stop();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
  for (std::size_t piece = 0; piece < pieces_.size(); ++piece) shared_->pieces.remove(range(piece).base);
}

void GpuHostRegistration::let_go_gently(const std::stop_token& hurry) {
  stop_registering();
  Visit visit(shared_->device);
  if (visit.try_begin() != success) return;
  const auto longest =
      std::min<nanoseconds>(longest_pause, nanoseconds(gentle_time) / std::max<std::size_t>(1, pieces_.size()));
  for (std::size_t piece = 0; piece < pieces_.size(); ++piece) {
    if (pieces_[piece] != Piece::ours) continue;
    const auto unregister = [&] { (void)shared_->device.api().cuMemHostUnregister(range(piece).base); };
    if (!in_turn(hurry, longest, unregister)) return;
    pieces_[piece] = Piece::let_go;
  }
}

// As many as can be had.
void GpuHostRegistration::start_threads(void (GpuHostRegistration::*body)()) {
  const std::size_t by_cores = std::clamp<std::size_t>(std::thread::hardware_concurrency(), 2, most_threads);
  const std::size_t count = std::min(by_cores, pieces_.size());
  try {
    while (threads_.size() < count) {
      threads_.push_back(start_native_thread("fkv-register", [this, body] { (this->*body)(); }));
    }
  } catch (const std::system_error&) {
    return;
  }
}

GpuHostRegistration::Range GpuHostRegistration::range(std::size_t piece) const {
  const std::int64_t at_once = slots_per_piece(host_.stride_bytes);
  const std::int64_t begin = static_cast<std::int64_t>(piece) * at_once;
  const std::int64_t end = std::min(host_.num_slots, begin + at_once);
  return {end, host_.base + static_cast<std::uint64_t>(begin) * host_.stride_bytes,
          static_cast<std::uint64_t>(end - begin) * host_.stride_bytes};
}

void GpuHostRegistration::register_pieces() {
  const Result entered = shared_->device.try_enter();
  const std::stop_token ends = ends_.get_token();
  while (!ends.stop_requested()) {
    const std::size_t piece = next_++;
    if (piece >= pieces_.size()) return;
    const Range memory = range(piece);
    Result result = entered;
    if (entered == success) {
      (void)try_populate(memory.base, memory.bytes);  // what is not there the driver asks for itself, or refuses
      const auto call = [&] {
        result = shared_->device.api().cuMemHostRegister(memory.base, memory.bytes, host_portable_and_mapped);
      };
      if (!in_turn(ends, longest_pause, call)) return;
    }
    if (result == success) shared_->pieces.add(shared_->device, memory.base, memory.bytes);
    if (settle(piece, result) && !ends.stop_requested()) then_(ends);
  }
}

// A device that has failed has nothing to do any more.
bool GpuHostRegistration::is_engine_at_work() const noexcept {
  try {
    return shared_->steps.has_worked_lately();
  } catch (const Error&) {
    return false;
  }
}

bool GpuHostRegistration::in_turn(const std::stop_token& ends, nanoseconds longest, const std::function<void()>& call) {
  std::unique_lock lock(turn_);
  for (auto until = not_before_; !ends.stop_requested() && WaitClock::now() < until; until = not_before_) {
    never_.wait_until(lock, ends, until, [] { return false; });  // others take their turns meanwhile
  }
  if (ends.stop_requested()) return false;
  const auto begin = WaitClock::now();
  call();
  const auto end = WaitClock::now();
  not_before_ =
      end + (is_engine_at_work() ? pause_after(end - begin, longest) : std::min<nanoseconds>(breath, longest));
  return true;
}

bool GpuHostRegistration::settle(std::size_t piece, Result result) {
  const std::uint64_t bytes = range(piece).bytes;
  const std::lock_guard lock(mutex_);
  if (result == success || result == error_host_memory_already_registered) {
    pieces_[piece] = result == success ? Piece::ours : Piece::anothers;
    told_.registered_bytes += bytes;
  } else {
    pieces_[piece] = Piece::refused;
    told_.unregistered_bytes += bytes;
    if (told_.error.empty()) told_.error = error_text(shared_->device.api(), result, "cuMemHostRegister");
  }
  const std::size_t without_gap = settled_.add(piece);
  if (without_gap > 0) told_.num_slots = range(without_gap - 1).end_slot;
  told_.is_complete = without_gap == pieces_.size();
  progress_(told_);
  return told_.is_complete;
}

void GpuHostRegistration::unregister_pieces() {
  Visit visit(shared_->device);
  if (visit.try_begin() != success) return;  // the driver is gone, and its registrations with it
  for (std::size_t piece = next_++; piece < pieces_.size(); piece = next_++) {
    if (pieces_[piece] == Piece::ours) (void)shared_->device.api().cuMemHostUnregister(range(piece).base);
  }
}

}  // namespace flexkv::cuda
