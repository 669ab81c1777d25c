#include "storage/uring_io.h"

#include <poll.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <utility>

#include "transfer/os_error.h"
#include "transfer/timeout.h"

namespace flexkv {
namespace {

using std::chrono::nanoseconds;

constexpr std::uint64_t wake_user_data = ~std::uint64_t{0};  // others are slots
constexpr std::size_t piece_bytes = std::size_t{1} << 30;    // the most that the kernel registers as one
constexpr unsigned max_pieces = 1024;
constexpr std::size_t max_entry_bytes = std::size_t{1} << 30;  // an entry's length has 32 bits; the kernel moves 2 GiB
constexpr int max_failures = 16;
constexpr nanoseconds first_pause = std::chrono::milliseconds(1);
constexpr nanoseconds longest_pause = std::chrono::milliseconds(100);

nanoseconds pause_after(int num_failures) {
  return std::min(longest_pause, first_pause * (1 << std::min(num_failures, 7)));
}

std::uint64_t address_of(const void* at) { return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(at)); }

}  // namespace

UringIo::UringIo(const DiskIoConfig& config, std::unique_ptr<UringSyscalls> system)
    : system_(std::move(system)), ring_(*system_, config.depth + 1), slots_(config.depth) {
  for (std::size_t slot = config.depth; slot > 0; --slot) free_.push_back(slot - 1);
  empty_.reserve(config.depth);
  pieces_.reserve(max_pieces);
  register_files(config.files);
  has_buffer_table_ = ring_.register_buffer_table(max_pieces) == 0;
}

// What was submitted and not started, is started: a caller that has handed over bytes to be written has them written.
UringIo::~UringIo() {
  std::vector<DiskResult> dropped;
  dropped.reserve(slots_.size());
  while (in_flight_ > 0) {  // the kernel writes into the buffers of those: there is no giving up
    dropped.clear();
    (void)turn(dropped, longest_pause);
  }
}

// With all files registered the kernel need not look them up. It is not needed: on failure descriptors are used.
void UringIo::register_files(const std::vector<File*>& files) {
  std::vector<int> fds;
  for (const File* file : files) {
    fds.push_back(file->fd());
    if (fds.back() < 0) throw_errno(EBADF, "io_uring needs files with a descriptor");
  }
  if (!fds.empty() && ring_.register_files(fds) == 0) registered_files_ = files;
}

bool UringIo::add_buffer(const iovec& memory) {
  if (!has_buffer_table_) return false;
  auto* at = static_cast<std::byte*>(memory.iov_base);
  std::size_t left = memory.iov_len;
  while (left > 0 && num_pieces_used_ < max_pieces) {
    const iovec piece = {at, std::min(left, piece_bytes)};
    const unsigned index = num_pieces_used_;
    if (ring_.register_buffer(index, piece) != 0) return false;
    ++num_pieces_used_;
    const auto begin = reinterpret_cast<std::uintptr_t>(at);
    const auto after = std::ranges::upper_bound(pieces_, begin, {}, &Piece::begin);
    pieces_.insert(after, {begin, begin + piece.iov_len, static_cast<std::uint16_t>(index)});
    at += piece.iov_len;
    left -= piece.iov_len;
  }
  return left == 0;
}

std::optional<std::uint16_t> UringIo::registered_index(const iovec& memory) const {
  const auto begin = reinterpret_cast<std::uintptr_t>(memory.iov_base);
  const auto after = std::ranges::upper_bound(pieces_, begin, {}, &Piece::begin);
  if (after == pieces_.begin()) return std::nullopt;
  const Piece& piece = *(after - 1);
  if (begin + memory.iov_len > piece.end) return std::nullopt;
  return piece.index;
}

void UringIo::submit(DiskRequest request) {
  const std::size_t slot = free_.back();
  slots_[slot] = DiskTransfer(std::move(request));
  free_.pop_back();
  ++in_flight_;
  if (slots_[slot].is_complete()) {
    empty_.push_back(slot);
  } else {
    queue(slot);
  }
}

void UringIo::queue(std::size_t slot) {
  const DiskTransfer& transfer = slots_[slot];
  const std::span<const iovec> rest = transfer.rest();
  uring::Sqe sqe;
  aim(sqe, transfer);
  sqe.off = transfer.offset();
  sqe.user_data = slot;
  const auto index = rest.size() == 1 ? registered_index(rest.front()) : std::nullopt;
  if (index) {
    sqe.opcode = transfer.is_write() ? uring::op_write_fixed : uring::op_read_fixed;
    sqe.addr = address_of(rest.front().iov_base);
    sqe.len = static_cast<std::uint32_t>(std::min(rest.front().iov_len, max_entry_bytes));
    sqe.buf_index = *index;
  } else {
    sqe.opcode = transfer.is_write() ? uring::op_writev : uring::op_readv;
    sqe.addr = address_of(rest.data());
    sqe.len = static_cast<std::uint32_t>(std::min<std::size_t>(rest.size(), IOV_MAX));
  }
  ring_.push(sqe);
}

void UringIo::aim(uring::Sqe& sqe, const DiskTransfer& transfer) const {
  const auto found = std::ranges::find(registered_files_, transfer.file());
  if (found == registered_files_.end()) {
    sqe.fd = transfer.file()->fd();
  } else {
    sqe.fd = static_cast<std::int32_t>(found - registered_files_.begin());
    sqe.flags = uring::sqe_fixed_file;
  }
}

void UringIo::wait(std::vector<DiskResult>& results, double timeout_s) {
  results.reserve(results.size() + in_flight_);
  const std::size_t num_before = results.size();
  const auto deadline = Clock::now() + std::chrono::duration_cast<nanoseconds>(bounded_timeout(timeout_s));
  bool is_over = false;
  bool has_more_to_start = false;
  do {
    const int error = turn(results, is_over ? nanoseconds::zero() : deadline - Clock::now());
    is_over = results.size() > num_before || is_woken_ || Clock::now() >= deadline;
    // What the kernel took only a part of is handed over again at once; what it refuses, by the next wait.
    has_more_to_start = error == 0 && ring_.num_queued() > 0;
  } while (!is_over || has_more_to_start);
  is_woken_ = false;
}

int UringIo::turn(std::vector<DiskResult>& results, nanoseconds timeout) {
  const std::size_t num_before = results.size();
  for (; !empty_.empty(); empty_.pop_back()) finish(empty_.back(), slots_[empty_.back()].error(), results);
  collect(results);
  if (results.size() > num_before || is_woken_) timeout = nanoseconds::zero();
  const int error = enter(timeout);
  collect(results);
  if (error == 0) return 0;
  if (++num_failures_ >= max_failures) give_up_queued(results);
  const bool has_some = results.size() > num_before || is_woken_ || timeout <= nanoseconds::zero();
  if (!has_some && error != EINTR) pause(std::min(timeout, pause_after(num_failures_)));
  return error;
}

int UringIo::enter(nanoseconds timeout) {
  int error = 0;
  if (!is_bound_) error = ring_.bind();
  is_bound_ = error == 0;
  if (!is_bound_) return error;
  watch_wake_event();
  const unsigned num_queued = ring_.num_queued();
  error = ring_.enter(num_queued, timeout);
  if (ring_.num_queued() < num_queued) {
    num_failures_ = 0;
  } else if (num_queued > 0 && error == 0) {
    error = EAGAIN;
  }
  return error;
}

// In the kernel; `wake` ends it, also when the entry that watches for it has not got there.
void UringIo::pause(nanoseconds timeout) {
  if (system_->poll(event_.fd(), timeout) <= 0) return;
  event_.drain();
  is_woken_ = true;
}

void UringIo::watch_wake_event() {
  if (is_watching_) return;
  uring::Sqe sqe;
  sqe.opcode = uring::op_poll_add;
  sqe.fd = event_.fd();
  sqe.op_flags = POLLIN;
  sqe.user_data = wake_user_data;
  ring_.push(sqe);
  is_watching_ = true;
}

void UringIo::collect(std::vector<DiskResult>& results) {
  while (const auto cqe = ring_.pop()) {
    num_failures_ = 0;
    if (cqe->user_data == wake_user_data) {
      take_wake(cqe->res);
      continue;
    }
    const auto slot = static_cast<std::size_t>(cqe->user_data);
    if (slots_[slot].take(cqe->res) == DiskTransfer::Step::more) {
      queue(slot);
    } else {
      finish(slot, slots_[slot].error(), results);
    }
  }
}

// An answer that is an error wakes, too: a wait that ends early does no harm. The pause is for one that always fails.
void UringIo::take_wake(std::int32_t answer) {
  is_watching_ = false;
  if (answer < 0) pause(first_pause);
  event_.drain();
  is_woken_ = true;
}

void UringIo::finish(std::size_t slot, int error, std::vector<DiskResult>& results) {
  results.push_back({slots_[slot].tag(), error});
  slots_[slot] = DiskTransfer();
  free_.push_back(slot);
  --in_flight_;
}

void UringIo::give_up_queued(std::vector<DiskResult>& results) {
  while (const auto sqe = ring_.withdraw()) {
    if (sqe->user_data == wake_user_data) {
      is_watching_ = false;
    } else {
      finish(static_cast<std::size_t>(sqe->user_data), EIO, results);
    }
  }
}

}  // namespace flexkv
