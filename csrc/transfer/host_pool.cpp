#include "transfer/host_pool.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <map>
#include <mutex>
#include <stdexcept>
#include <system_error>
#include <thread>

#include "transfer/host_memory.h"
#include "transfer/native_thread.h"
#include "transfer/os_error.h"
#include "transfer/populate.h"
#include "transfer/socket.h"
#include "transfer/timeout.h"

#ifndef MFD_HUGE_2MB
#define MFD_HUGE_2MB (21U << 26)
#endif

namespace flexkv {

namespace {

constexpr std::uint64_t small_page_bytes = 4u << 10;
constexpr std::uint64_t huge_page_bytes = 2u << 20;
constexpr std::uint64_t prefault_step_bytes = 16u << 20;  // what a stop waits for, per thread
constexpr std::size_t max_shards = 64;
constexpr int max_prefault_threads = 256;
constexpr int prefault_nice = 10;

std::uint64_t round_up(std::uint64_t value, std::uint64_t unit) { return (value + unit - 1) / unit * unit; }

void check_config(const HostPoolConfig& config) {
  if (config.num_slots <= 0) {
    throw std::invalid_argument("num_slots is " + std::to_string(config.num_slots) + ", must be positive");
  }
  if (config.slot_bytes.empty() || config.slot_bytes.size() > max_shards) {
    throw std::invalid_argument("slot_bytes has " + std::to_string(config.slot_bytes.size()) +
                                " shards, must have 1 to " + std::to_string(max_shards));
  }
  if (config.prefault_threads < 1 || config.prefault_threads > max_prefault_threads) {
    throw std::invalid_argument("prefault_threads is " + std::to_string(config.prefault_threads) + ", must be 1 to " +
                                std::to_string(max_prefault_threads));
  }
  constexpr std::uint64_t max_bytes = std::uint64_t{1} << 56;  // no sum or product below overflows
  std::uint64_t stride_sum = 0;
  for (const std::uint64_t bytes : config.slot_bytes) {
    if (bytes == 0 || bytes > max_bytes / max_shards) {
      throw std::invalid_argument("slot_bytes contains " + std::to_string(bytes) + ", out of range");
    }
    stride_sum += slot_stride_bytes(bytes);
  }
  if (static_cast<std::uint64_t>(config.num_slots) > max_bytes / stride_sum) {
    throw std::invalid_argument("num_slots " + std::to_string(config.num_slots) + " times " +
                                std::to_string(stride_sum) + " bytes is out of range");
  }
}

std::uint64_t random_generation() {
  std::uint64_t value = 0;
  if (::getrandom(&value, sizeof(value), 0) != static_cast<ssize_t>(sizeof(value))) throw_errno(errno, "getrandom");
  return value | 1;  // never 0
}

// One shard's sealed memfd and its mapping.
class Segment {
 public:
  Segment(std::uint64_t bytes, bool hugetlb) : bytes_(round_up(bytes, hugetlb ? huge_page_bytes : small_page_bytes)) {
    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (hugetlb ? MFD_HUGETLB | MFD_HUGE_2MB : 0U);
    fd_ = Fd(::memfd_create("flexkv-host-pool", flags));
    if (!fd_.valid()) throw_errno(errno, "memfd_create");
    if (::ftruncate(fd_.get(), static_cast<off_t>(bytes_)) != 0) throw_errno(errno, "ftruncate of a host segment");
    if (::fcntl(fd_.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
      throw_errno(errno, "sealing a host segment");
    }
    void* address = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
    if (address == MAP_FAILED) throw_errno(errno, "mmap of a host segment of " + format_gib(bytes_));
    base_ = static_cast<std::byte*>(address);
    (void)::madvise(base_, bytes_, MADV_DONTFORK);
  }
  ~Segment() {
    if (base_ != nullptr) ::munmap(base_, bytes_);
  }
  Segment(Segment&& other) noexcept
      : bytes_(other.bytes_), fd_(std::move(other.fd_)), base_(std::exchange(other.base_, nullptr)) {}
  Segment(const Segment&) = delete;
  Segment& operator=(const Segment&) = delete;
  Segment& operator=(Segment&&) = delete;

  void advise_huge() { (void)::madvise(base_, bytes_, MADV_HUGEPAGE); }
  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] int fd() const { return fd_.get(); }

 private:
  std::uint64_t bytes_;
  Fd fd_;
  std::byte* base_ = nullptr;
};

std::vector<Segment> make_segments(std::int64_t num_slots, const std::vector<std::uint64_t>& strides, bool hugetlb) {
  std::vector<Segment> segments;
  segments.reserve(strides.size());
  for (const std::uint64_t stride : strides)
    segments.emplace_back(static_cast<std::uint64_t>(num_slots) * stride, hugetlb);
  return segments;
}

}  // namespace

std::uint64_t slot_stride_bytes(std::uint64_t slot_bytes) { return round_up(slot_bytes, small_page_bytes); }

struct HostPool::Impl {
  pid_t owner_pid = ::getpid();
  std::int64_t num_slots = 0;
  std::vector<std::uint64_t> slot_bytes;
  std::vector<std::uint64_t> strides;
  std::vector<Segment> segments;
  std::string page_kind;
  std::uint64_t generation = random_generation();

  // Steps of `slots_per_step` slots are claimed in order; prefaulted is the end of the unbroken run of finished ones.
  std::int64_t slots_per_step = 1;
  std::atomic<std::int64_t> next_slot = 0;
  std::atomic<bool> stopping = false;
  std::atomic<std::int64_t> prefaulted = 0;
  mutable std::mutex mutex;
  mutable std::condition_variable progress;
  std::map<std::int64_t, std::int64_t> finished;  // begin -> end, beyond prefaulted; guarded by mutex
  int prefault_errno = 0;                         // guarded by mutex
  std::vector<std::thread> threads;

  explicit Impl(const HostPoolConfig& config) : num_slots(config.num_slots), slot_bytes(config.slot_bytes) {
    std::uint64_t stride_sum = 0;
    for (const std::uint64_t bytes : slot_bytes) {
      strides.push_back(slot_stride_bytes(bytes));
      stride_sum += strides.back();
    }
    slots_per_step = static_cast<std::int64_t>(std::max<std::uint64_t>(1, prefault_step_bytes / stride_sum));
    make_memory(config, static_cast<std::uint64_t>(num_slots) * stride_sum);
  }

  Impl(const Impl&) = delete;
  Impl& operator=(const Impl&) = delete;
  ~Impl() {
    stopping = true;
    for (std::thread& thread : threads) thread.join();
  }

  void make_memory(const HostPoolConfig& config, std::uint64_t total_bytes) {
    const std::uint64_t rounding_bytes = strides.size() * huge_page_bytes;
    if (config.use_hugetlb && free_hugetlb_bytes() >= total_bytes + rounding_bytes) {
      try {
        segments = make_segments(num_slots, strides, true);
        page_kind = "hugetlb";
        return;
      } catch (const std::system_error&) {  // taken by others meanwhile, or not allowed here: use small pages
        segments.clear();
      }
    }
    const MemoryHeadroom headroom = memory_headroom();
    if (total_bytes > headroom.available_bytes) {
      throw_errno(ENOMEM, "a host pool of " + format_gib(total_bytes) + " does not fit: only " +
                              format_gib(headroom.available_bytes) + " can be had (" + headroom.limited_by +
                              "); lower FLEXKV_CPU_CACHE_GB or CacheConfig.cpu_cache_bytes, or raise the limit");
    }
    segments = make_segments(num_slots, strides, false);
    page_kind = shmem_huge_pages_enabled() ? "thp" : "4k";
    if (page_kind == "thp") {
      for (Segment& segment : segments) segment.advise_huge();
    }
  }

  void start_prefault(int num_threads) {
    try {
      for (int i = 0; i < num_threads; ++i) {
        threads.push_back(start_native_thread("fkv-prefault", [this] { prefault(); }));
      }
    } catch (const std::system_error&) {
      if (threads.empty()) throw;  // one thread is enough, only slower
    }
  }

  void prefault() {
    // First touches take seconds of CPU time, while the engine already serves: it goes first. On Linux the
    // priority is a thread's own; failing to lower it costs nothing but speed.
    (void)::setpriority(PRIO_PROCESS, static_cast<id_t>(::gettid()), prefault_nice);
    std::int64_t begin = next_slot.fetch_add(slots_per_step);
    while (begin < num_slots && !stopping) {
      const std::int64_t end = std::min(num_slots, begin + slots_per_step);
      const int error = populate_slots(begin, end);
      if (error != 0 || stopping) {
        const std::lock_guard lock(mutex);
        if (error != 0) prefault_errno = error;
        stopping = true;
        progress.notify_all();
        return;
      }
      finish_step(begin, end);
      begin = next_slot.fetch_add(slots_per_step);
    }
  }

  int populate_slots(std::int64_t begin, std::int64_t end) {
    for (std::size_t shard = 0; shard < segments.size(); ++shard) {
      const std::uint64_t first = static_cast<std::uint64_t>(begin) * strides[shard];
      const std::uint64_t last = static_cast<std::uint64_t>(end) * strides[shard];
      for (std::uint64_t at = first; at < last && !stopping; at += prefault_step_bytes) {
        const int error = populate(segments[shard].base() + at, std::min(prefault_step_bytes, last - at));
        if (error != 0) return error;
      }
    }
    return 0;
  }

  void finish_step(std::int64_t begin, std::int64_t end) {
    const std::lock_guard lock(mutex);
    finished.emplace(begin, end);
    std::int64_t reached = prefaulted;
    for (auto step = finished.begin(); step != finished.end() && step->first == reached; step = finished.erase(step)) {
      reached = step->second;
    }
    prefaulted = reached;
    progress.notify_all();
  }

  [[nodiscard]] const Segment& segment(int shard) const {
    if (shard < 0 || static_cast<std::size_t>(shard) >= segments.size()) {
      throw std::invalid_argument("shard " + std::to_string(shard) + " is out of range [0, " +
                                  std::to_string(segments.size()) + ")");
    }
    return segments[static_cast<std::size_t>(shard)];
  }
};

HostPool::HostPool(const HostPoolConfig& config) {
  check_config(config);
  impl_ = std::make_unique<Impl>(config);
  impl_->start_prefault(config.prefault_threads);
}

HostPool::~HostPool() {
  // In a forked child the threads and the mappings are not there: leave everything to the parent.
  if (impl_ && impl_->owner_pid != ::getpid()) (void)impl_.release();
}

int HostPool::num_shards() const { return static_cast<int>(impl_->segments.size()); }

std::int64_t HostPool::num_slots() const { return impl_->num_slots; }

std::uint64_t HostPool::slot_bytes(int shard) const {
  (void)impl_->segment(shard);
  return impl_->slot_bytes[static_cast<std::size_t>(shard)];
}

std::uint64_t HostPool::stride_bytes(int shard) const { return slot_stride_bytes(slot_bytes(shard)); }

std::byte* HostPool::base(int shard) const { return impl_->segment(shard).base(); }

int HostPool::fd(int shard) const { return impl_->segment(shard).fd(); }

std::uint64_t HostPool::generation() const { return impl_->generation; }

std::int64_t HostPool::slots_prefaulted() const { return impl_->prefaulted; }

bool HostPool::wait_prefaulted(std::int64_t slots, double timeout_s) const {
  if (impl_->owner_pid != ::getpid()) return false;
  std::unique_lock lock(impl_->mutex);
  (void)impl_->progress.wait_for(lock, bounded_timeout(timeout_s),
                                 [&] { return impl_->prefaulted >= slots || impl_->stopping; });
  return impl_->prefaulted >= slots;
}

std::string HostPool::page_kind() const { return impl_->page_kind; }

int HostPool::prefault_error() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->prefault_errno;
}

}  // namespace flexkv
