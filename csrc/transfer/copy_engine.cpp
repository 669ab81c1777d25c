#include "transfer/copy_engine.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "transfer/native_thread.h"
#include "transfer/stream_copy.h"

namespace flexkv {
namespace {

constexpr std::uint64_t min_unit_bytes = 256u << 10;
constexpr std::uint64_t max_unit_bytes = 4u << 20;
constexpr std::uint64_t units_per_thread = 8;
constexpr std::uint64_t least_part_bytes = 64u << 10;  // of each block, in a load by layers

// One call of `copy`: its bytes are numbered [0, total) in order of (pair, plane, offset) and cut into units.
class Job {
 public:
  Job(const DeviceLayout& layout, const HostShard& host, protocol::Direction direction,
      std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks, std::uint64_t num_threads)
      : layout_(layout),
        host_(host),
        direction_(direction),
        slots_(slots),
        blocks_(blocks),
        slot_bytes_(layout.slot_bytes()),
        total_(slot_bytes_ * slots.size()),
        granule_(layout.planes.front().chunk_bytes) {
    std::uint64_t offset = 0;
    for (const Plane& plane : layout.planes) {
      offsets_.push_back(offset);
      offset += plane.chunk_bytes;
    }
    const Plane& first = layout.planes.front();
    unit_ = std::clamp(total_ / (num_threads * units_per_thread), min_unit_bytes, max_unit_bytes);
    if (2 * granule_ <= max_unit_bytes) unit_ += 2 * granule_ - 1 - (unit_ - 1) % (2 * granule_);  // a whole number
    runs_touch_ = layout.planes.size() == 1 && first.block_stride_bytes == first.chunk_bytes &&
                  host.stride_bytes == first.chunk_bytes;
  }

  [[nodiscard]] std::uint64_t total_bytes() const { return total_; }
  [[nodiscard]] bool worth_sharing() const { return total_ > unit_; }

  // Takes units until none is left. Any number of threads; what a thread copied is visible to others once it returned
  // and synchronized with them.
  void work() {
    for (std::uint64_t at = next_.fetch_add(unit_); at < total_; at = next_.fetch_add(unit_)) {
      copy_range(at, std::min(at + unit_, total_));
    }
    stream_fence();
  }

 private:
  // One contiguous run of bytes, on both sides.
  struct Piece {
    std::byte* host;
    std::byte* device;
    std::uint64_t length;
  };

  // The pieces of a range of the job, one after the other.
  class Walk {
   public:
    Walk(const Job& job, std::uint64_t at, std::uint64_t end) : job_(job), at_(at), end_(end) {
      if (at < end) piece_ = job.locate(at, end - at);
    }

    [[nodiscard]] std::uint64_t left_in_piece() const { return at_ < end_ ? piece_.length : 0; }

    // REQUIRES: 0 < bytes <= left_in_piece()
    StreamPiece take(std::uint64_t bytes) {
      const Piece taken = piece_;
      at_ += bytes;
      if (bytes < piece_.length) {
        piece_ = {piece_.host + bytes, piece_.device + bytes, piece_.length - bytes};
      } else if (at_ < end_) {
        piece_ = job_.locate(at_, end_ - at_);
      }
      if (job_.direction_ == protocol::Direction::load) return {taken.device, taken.host, bytes, piece_.host};
      return {taken.host, taken.device, bytes, piece_.device};
    }

   private:
    const Job& job_;
    std::uint64_t at_;
    const std::uint64_t end_;
    Piece piece_{};
  };

  // Both halves at once, in turns; see stream_copy.h. The second one begins in the middle of a chunk: where one stream
  // goes over to its next piece, the other is well inside its own (0.94 of the limit, against 0.89 in step).
  void copy_range(std::uint64_t at, std::uint64_t end) const {
    const std::uint64_t half = (end - at) / 2;
    const std::uint64_t in_chunk = granule_ / 2 - granule_ / 2 % line_bytes;
    const std::uint64_t middle = at + (half < granule_ ? half : half - half % granule_ + in_chunk);
    Walk first(*this, at, middle);
    Walk second(*this, middle, end);
    while (true) {
      const std::uint64_t both = std::min(first.left_in_piece(), second.left_in_piece());
      if (both == 0) break;
      stream_copy_two(first.take(both), second.take(both));
    }
    for (Walk* rest : {&first, &second}) {
      while (rest->left_in_piece() > 0) stream_copy(rest->take(rest->left_in_piece()));
    }
  }

  // The piece of at most `limit` bytes that begins at byte `at` of the job.
  [[nodiscard]] Piece locate(std::uint64_t at, std::uint64_t limit) const {
    const std::size_t pair = at / slot_bytes_;
    const std::uint64_t in_slot = at % slot_bytes_;
    const auto after = std::ranges::upper_bound(offsets_, in_slot);
    const std::size_t plane_idx = static_cast<std::size_t>(after - offsets_.begin()) - 1;
    const Plane& plane = layout_.planes[plane_idx];
    const std::uint64_t in_chunk = in_slot - offsets_[plane_idx];
    std::uint64_t length = plane.chunk_bytes - in_chunk;
    if (runs_touch_) {
      for (std::size_t i = pair; length < limit && i + 1 < slots_.size() && continues(i); ++i) {
        length += plane.chunk_bytes;
      }
    }
    const std::uint64_t block_at = static_cast<std::uint64_t>(blocks_[pair]) * plane.block_stride_bytes;
    return {host_.base + static_cast<std::uint64_t>(slots_[pair]) * host_.stride_bytes + in_slot,
            reinterpret_cast<std::byte*>(plane.base + block_at + in_chunk), std::min(length, limit)};
  }

  [[nodiscard]] bool continues(std::size_t i) const {
    return slots_[i + 1] == slots_[i] + 1 && blocks_[i + 1] == blocks_[i] + 1;
  }

  const DeviceLayout& layout_;
  const HostShard& host_;
  const protocol::Direction direction_;
  const std::span<const std::int64_t> slots_;
  const std::span<const std::int64_t> blocks_;
  const std::uint64_t slot_bytes_;
  const std::uint64_t total_;
  const std::uint64_t granule_;         // where a unit is best cut: between chunks
  std::vector<std::uint64_t> offsets_;  // of each plane's chunk in the slot
  std::uint64_t unit_ = 0;
  bool runs_touch_ = false;  // adjacent pairs are contiguous on both sides
  std::atomic<std::uint64_t> next_{0};
};

}  // namespace

// The helper threads. A job is open from `share` until its units are taken; helpers that woke in time join it, and
// `share` returns once all that joined have left it: no helper holds the job afterwards.
class CopyEngine::Helpers {
 public:
  explicit Helpers(int num_helpers) : owner_(::getpid()) {
    try {
      for (int i = 0; i < num_helpers; ++i) {
        threads_.push_back(start_native_thread("flexkv-copy", [this] { run(); }));
      }
    } catch (...) {
      stop();
      throw;
    }
  }

  ~Helpers() { stop(); }
  Helpers(const Helpers&) = delete;
  Helpers& operator=(const Helpers&) = delete;

  [[nodiscard]] bool in_owner() const { return owner_ == ::getpid(); }
  [[nodiscard]] std::uint64_t num_threads() const { return threads_.size() + 1; }

  void share(Job& job) {
    {
      const std::lock_guard lock(mutex_);
      job_ = &job;
      ++job_number_;
    }
    wake_.notify_all();
    job.work();
    std::unique_lock lock(mutex_);
    job_ = nullptr;
    idle_.wait(lock, [this] { return num_joined_ == 0; });
  }

 private:
  void run() {
    std::uint64_t joined = 0;  // number of the last job, so that none is joined twice
    std::unique_lock lock(mutex_);
    while (!stopping_) {
      if (job_ == nullptr || joined == job_number_) {
        wake_.wait(lock);
        continue;
      }
      Job* job = job_;
      joined = job_number_;
      ++num_joined_;
      lock.unlock();
      job->work();
      lock.lock();
      if (--num_joined_ == 0) idle_.notify_one();
    }
  }

  void stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  const pid_t owner_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::condition_variable idle_;
  // Guarded by mutex_:
  Job* job_ = nullptr;  // open for joining
  std::uint64_t job_number_ = 0;
  int num_joined_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

CopyEngine::CopyEngine(int num_threads) {
  if (num_threads < 1 || num_threads > max_threads) {
    throw std::invalid_argument("num_threads must be 1 .. " + std::to_string(max_threads) + ", not " +
                                std::to_string(num_threads));
  }
  helpers_ = std::make_unique<Helpers>(num_threads - 1);
}

CopyEngine::~CopyEngine() {
  if (!helpers_->in_owner()) (void)helpers_.release();  // a forked child has none of the threads to join
}

std::uint64_t CopyEngine::copy(const DeviceLayout& layout, const HostShard& host, protocol::Direction direction,
                               std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks) {
  if (slots.empty()) return 0;
  Job job(layout, host, direction, slots, blocks, helpers_->num_threads());
  if (helpers_->num_threads() > 1 && job.worth_sharing() && helpers_->in_owner()) {
    helpers_->share(job);
  } else {
    job.work();
  }
  return job.total_bytes();
}

namespace {

class CpuCopier final : public BlockCopier {
 public:
  CpuCopier(DeviceLayout layout, protocol::Direction direction, int copy_threads)
      : layout_(std::move(layout)), direction_(direction), engine_(copy_threads) {}

  std::uint64_t copy(const HostShard& host, std::span<const std::int64_t> slots, std::span<const std::int64_t> blocks,
                     std::uint64_t /*after_step*/) override {
    return engine_.copy(layout_, host, direction_, slots, blocks);
  }

  std::uint64_t copy_in_parts(const HostShard& host, std::span<const std::int64_t> slots,
                              std::span<const std::int64_t> blocks, std::uint64_t /*after_step*/,
                              PartSink& sink) override {
    std::uint64_t bytes = 0;
    std::uint64_t begin = 0;
    for (const std::uint64_t end : part_ends_) {
      const HostShard part = {host.base + begin, host.stride_bytes, host.num_slots};
      bytes += engine_.copy(slice(layout_, begin, end), part, direction_, slots, blocks);
      sink.part_issued(end, 0);
      begin = end;
    }
    return bytes;
  }

 private:
  const DeviceLayout layout_;
  const protocol::Direction direction_;
  const std::vector<std::uint64_t> part_ends_ = part_ends(layout_, least_part_bytes);
  CopyEngine engine_;
};

}  // namespace

CpuBackend::CpuBackend(DeviceLayout layout, int copy_threads)
    : layout_(std::move(layout)), copy_threads_(copy_threads) {}

std::unique_ptr<BlockCopier> CpuBackend::make_copier(protocol::Direction direction) {
  return std::make_unique<CpuCopier>(layout_, direction, copy_threads_);
}

std::unique_ptr<HostRegistration> CpuBackend::use_host(const HostShard& host,
                                                       std::function<void(const HostProgress&)> progress) {
  progress({host.num_slots, true, 0, 0, {}});
  return std::make_unique<HostRegistration>();
}

void copy_nontemporal(std::byte* dst, const std::byte* src, std::size_t bytes) {
  stream_copy({dst, src, bytes, src});
  stream_fence();
}

}  // namespace flexkv
