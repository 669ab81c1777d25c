// GpuHostRegistration: a shard's host memory, registered with the driver in pieces, while copies run.
//
// While the driver registers a piece, whoever else calls it waits, the engine with each launch, too (H100, 64 MiB: 2.6
// ms; longer where pages are still to be had); and while it unregisters one, for all that the GPU has to do besides.
// Hence pieces are short, and a few threads have their pages there before the driver is asked, for one at a time,
// behind a pause: a long one while the engine works, and else a short one, as who knows whether it begins. Several at
// once were no faster: the driver takes one after the other. The pauses of letting go come to `gentle_time` at most:
// somebody may need the memory.
//
// A piece is waiting -> being registered -> ours | another's (registered already) | refused. Slots are usable up to the
// first piece that is not settled yet. Where the driver refuses a piece, copies to and from it are slower, but right:
// it is usable all the same, and the progress says how many bytes there are of it, and why. The end unregisters what is
// ours and not let go yet, at once and without a pause: nobody is served any more. Thread safety: made, let go and
// ended by one thread.
#pragma once
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <stop_token>
#include <thread>
#include <vector>

#include "cuda/gpu_shared.h"
#include "cuda/gpu_wait.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

// Which pieces are settled: in any order. Pure.
class Settled {
 public:
  explicit Settled(std::size_t count) : is_settled_(count) {}
  // This one is, too. Returns how many are from the first one on without a gap.
  std::size_t add(std::size_t piece);

 private:
  std::vector<bool> is_settled_;
  std::size_t without_gap_ = 0;
};

// What to leave the engine between two pieces, the first of which kept it waiting for so long: at most `longest`. Pure.
[[nodiscard]] nanoseconds pause_after(nanoseconds taken, nanoseconds longest);

class GpuHostRegistration final : public HostRegistration {
 public:
  static constexpr std::size_t most_threads = 4;
  static constexpr std::chrono::milliseconds longest_pause{50};
  static constexpr std::chrono::seconds gentle_time{30};

  // `progress` is called by any of the threads, one at a time. `then` is done by the last one once all is settled; its
  // argument says that the registration ends. Throws std::system_error when no thread can be had.
  GpuHostRegistration(std::shared_ptr<GpuShared> shared, const HostShard& host,
                      std::function<void(const HostProgress&)> progress,
                      std::function<void(const std::stop_token& ends)> then);
  ~GpuHostRegistration() override;  // waits for pieces that are being registered
  void let_go_gently(const std::stop_token& hurry) override;
  GpuHostRegistration(const GpuHostRegistration&) = delete;
  GpuHostRegistration& operator=(const GpuHostRegistration&) = delete;

 private:
  enum class Piece : std::uint8_t { waiting, ours, anothers, refused, let_go };
  struct Range {
    std::int64_t end_slot;
    std::byte* base;
    std::uint64_t bytes;
  };
  [[nodiscard]] Range range(std::size_t piece) const;
  void start_threads(void (GpuHostRegistration::*body)());
  void register_pieces();
  void unregister_pieces();
  void stop_registering();
  [[nodiscard]] bool is_engine_at_work() const noexcept;
  // Calls with `turn_` held, behind the pause. False: `ends` before.
  bool in_turn(const std::stop_token& ends, nanoseconds longest, const std::function<void()>& call);
  [[nodiscard]] bool settle(std::size_t piece, Result result);  // whether it was the last

  const std::shared_ptr<GpuShared> shared_;
  const HostShard host_;
  const std::function<void(const HostProgress&)> progress_;
  const std::function<void(const std::stop_token&)> then_;
  std::stop_source ends_;
  std::mutex turn_;  // of one piece
  std::condition_variable_any never_;
  WaitClock::time_point not_before_{};  // guarded by turn_
  std::atomic<std::size_t> next_ = 0;   // the piece that the next thread takes
  std::mutex mutex_;
  std::vector<Piece> pieces_;  // guarded by mutex_ until the threads have ended
  Settled settled_;            // guarded by mutex_
  HostProgress told_;          // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace flexkv::cuda
