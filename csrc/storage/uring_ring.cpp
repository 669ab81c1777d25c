#include "storage/uring_ring.h"

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <bit>
#include <cerrno>
#include <system_error>

#include "transfer/os_error.h"

namespace flexkv {
namespace {

// Best first; a kernel that does not know a flag says EINVAL. The first needs 6.1: completions are handled when the
// thread asks for them, and do not interrupt it. Such a ring belongs to one thread, and starts disabled so that it need
// not be the one that made it.
constexpr std::array<std::uint32_t, 3> setup_choices = {
    uring::setup_r_disabled | uring::setup_submit_all | uring::setup_single_issuer | uring::setup_defer_taskrun,
    uring::setup_submit_all | uring::setup_coop_taskrun,  // 5.19
    0,
};

std::uint32_t load_acquire(std::uint32_t* word) { return std::atomic_ref(*word).load(std::memory_order_acquire); }
void store_release(std::uint32_t* word, std::uint32_t value) {
  std::atomic_ref(*word).store(value, std::memory_order_release);
}

template <typename T>
std::uint64_t address_of(const T* value) {
  return static_cast<std::uint64_t>(reinterpret_cast<std::uintptr_t>(value));
}

}  // namespace

UringRing::UringRing(UringSyscalls& system, unsigned entries) : system_(system) {
  set_up(std::bit_ceil(entries));
  constexpr std::uint32_t needed = uring::feature_single_mmap | uring::feature_nodrop;
  if ((params_.features & needed) != needed) throw_errno(ENOSYS, "io_uring of a kernel before 5.5");
  const std::size_t sq_bytes = params_.sq_off.array + params_.sq_entries * sizeof(std::uint32_t);
  const std::size_t cq_bytes = params_.cq_off.cqes + params_.cq_entries * sizeof(uring::Cqe);
  rings_ = map(std::max(sq_bytes, cq_bytes), uring::mmap_rings);
  try {
    sqes_ = map(params_.sq_entries * sizeof(uring::Sqe), uring::mmap_sqes);
  } catch (const std::system_error&) {
    unmap(rings_);
    throw;
  }
  std::uint32_t* const array = word(params_.sq_off.array);
  for (std::uint32_t i = 0; i < params_.sq_entries; ++i) array[i] = i;
}

UringRing::~UringRing() {
  unmap(sqes_);
  unmap(rings_);
}

void UringRing::set_up(unsigned entries) {
  int fd = -EINVAL;
  for (const std::uint32_t flags : setup_choices) {
    if (fd != -EINVAL) break;
    params_ = {};
    params_.flags = flags;
    fd = system_.setup(entries, params_);
  }
  if (fd < 0) throw_errno(-fd, "io_uring_setup");
  fd_ = Fd(fd);
}

UringRing::Mapping UringRing::map(std::size_t bytes, std::uint64_t offset) const {
  constexpr int flags = MAP_SHARED | MAP_POPULATE;
  void* const at = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, flags, fd_.get(), static_cast<off_t>(offset));
  if (at == MAP_FAILED) throw_errno(errno, "mmap of io_uring's rings");
  (void)::madvise(at, bytes, MADV_DONTFORK);  // a child has no use for them
  return {at, bytes};
}

void UringRing::unmap(const Mapping& mapping) { (void)::munmap(mapping.address, mapping.bytes); }

std::uint32_t* UringRing::word(std::uint32_t offset) const {
  return reinterpret_cast<std::uint32_t*>(static_cast<std::byte*>(rings_.address) + offset);
}

int UringRing::bind() {
  if ((params_.flags & uring::setup_r_disabled) == 0) return 0;
  const int result = system_.register_(fd_.get(), uring::register_enable_rings, nullptr, 0);
  return result < 0 ? -result : 0;
}

unsigned UringRing::num_queued() const { return *word(params_.sq_off.tail) - load_acquire(word(params_.sq_off.head)); }

void UringRing::push(const uring::Sqe& sqe) {
  std::uint32_t* const tail = word(params_.sq_off.tail);
  static_cast<uring::Sqe*>(sqes_.address)[*tail & (params_.sq_entries - 1)] = sqe;
  store_release(tail, *tail + 1);
}

std::optional<uring::Sqe> UringRing::withdraw() {
  if (num_queued() == 0) return std::nullopt;
  std::uint32_t* const tail = word(params_.sq_off.tail);
  store_release(tail, *tail - 1);  // the kernel looks only while in `enter`
  return static_cast<uring::Sqe*>(sqes_.address)[*tail & (params_.sq_entries - 1)];
}

std::optional<uring::Cqe> UringRing::pop() {
  std::uint32_t* const head = word(params_.cq_off.head);
  if (*head == load_acquire(word(params_.cq_off.tail))) return std::nullopt;
  const auto* const cqes = reinterpret_cast<const uring::Cqe*>(word(params_.cq_off.cqes));
  const uring::Cqe cqe = cqes[*head & (params_.cq_entries - 1)];
  store_release(head, *head + 1);
  return cqe;
}

int UringRing::enter(unsigned to_submit, std::chrono::nanoseconds timeout) {
  using std::chrono::seconds;
  const bool sleeps = timeout > std::chrono::nanoseconds::zero();
  int result = 0;
  if (!sleeps || (params_.features & uring::feature_ext_arg) == 0) {
    result = system_.enter(fd_.get(), to_submit, 0, uring::enter_getevents, nullptr, 0);
    if (result == static_cast<int>(to_submit) && sleeps) result = sleep(timeout);
  } else {
    const auto whole = std::chrono::duration_cast<seconds>(timeout);
    const uring::KernelTimespec limit = {whole.count(), (timeout - whole).count()};
    uring::GeteventsArg arg = {};
    arg.ts = address_of(&limit);
    result = system_.enter(fd_.get(), to_submit, 1, uring::enter_getevents | uring::enter_ext_arg, &arg, sizeof(arg));
  }
  return result < 0 && result != -ETIME ? -result : 0;
}

// Kernels before 5.11 have no time limit of their own.
int UringRing::sleep(std::chrono::nanoseconds timeout) {
  const bool has_some = *word(params_.cq_off.head) != load_acquire(word(params_.cq_off.tail));
  return has_some ? 0 : system_.poll(fd_.get(), timeout);
}

int UringRing::register_files(std::span<const int> fds) {
  const int result = system_.register_(fd_.get(), uring::register_files, fds.data(), static_cast<unsigned>(fds.size()));
  return result < 0 ? -result : 0;
}

int UringRing::register_buffer_table(unsigned size) {
  uring::RsrcRegister table = {};
  table.nr = size;
  table.flags = uring::rsrc_register_sparse;
  const int result = system_.register_(fd_.get(), uring::register_buffers2, &table, sizeof(table));
  return result < 0 ? -result : 0;
}

int UringRing::register_buffer(unsigned index, const iovec& memory) {
  uring::RsrcUpdate2 update = {};
  update.offset = index;
  update.data = address_of(&memory);
  update.nr = 1;
  const int result = system_.register_(fd_.get(), uring::register_buffers_update, &update, sizeof(update));
  return result < 0 ? -result : 0;
}

}  // namespace flexkv
