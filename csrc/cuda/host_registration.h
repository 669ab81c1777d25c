// GpuHostRegistration: a shard's host memory, registered with the driver in pieces by a few threads, while copies run.
//
// While the driver registers memory, whoever else calls it waits: the engine, too, with each launch. Hence the pieces
// are short, and their pages there before the driver asks for them (H100, 8 GiB that their pool prefaulted meanwhile: a
// kernel took up to 432 ms in pieces of 512 MiB, 65 of 64, 20 of 32; had all been there 30, 5.1 and 2.3).
//
// A piece is waiting -> being registered -> ours | another's (registered already) | refused. Slots are usable up to the
// first piece that is not settled yet. Where the driver refuses a piece, copies to and from it are slower, but right:
// it is usable all the same, and the progress says how many bytes there are of it, and why. The end unregisters what is
// ours, by as many threads. Thread safety: made and ended by one thread.
#pragma once
#include <atomic>
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "cuda/gpu_shared.h"
#include "transfer/block_copier.h"

namespace flexkv::cuda {

class GpuHostRegistration final : public HostRegistration {
 public:
  static constexpr std::size_t most_threads = 4;

  // `progress` is called by any of the threads, one at a time. `then` is done by the last one once all is settled; its
  // argument says that the registration ends. Throws std::system_error when no thread can be had.
  GpuHostRegistration(std::shared_ptr<GpuShared> shared, const HostShard& host,
                      std::function<void(const HostProgress&)> progress,
                      std::function<void(const std::atomic<bool>& ends)> then);
  ~GpuHostRegistration() override;  // waits for pieces that are being registered
  GpuHostRegistration(const GpuHostRegistration&) = delete;
  GpuHostRegistration& operator=(const GpuHostRegistration&) = delete;

 private:
  enum class Piece : std::uint8_t { waiting, ours, anothers, refused };
  struct Range {
    std::int64_t end_slot;
    std::byte* base;
    std::uint64_t bytes;
  };
  [[nodiscard]] Range range(std::size_t piece) const;
  void start_threads(void (GpuHostRegistration::*body)());
  void register_pieces();
  void unregister_pieces();
  [[nodiscard]] bool settle(std::size_t piece, Result result);  // whether it was the last

  const std::shared_ptr<GpuShared> shared_;
  const HostShard host_;
  const std::function<void(const HostProgress&)> progress_;
  const std::function<void(const std::atomic<bool>&)> then_;
  std::atomic<bool> ends_ = false;
  std::atomic<std::size_t> next_ = 0;  // the piece that the next thread takes
  std::mutex mutex_;
  std::vector<Piece> pieces_;    // guarded by mutex_ until the threads have ended
  std::size_t num_settled_ = 0;  // guarded by mutex_; from the first piece on
  HostProgress told_;            // guarded by mutex_
  std::vector<std::thread> threads_;
};

}  // namespace flexkv::cuda
