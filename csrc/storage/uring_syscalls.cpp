#include "storage/uring_syscalls.h"

#include <poll.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <ctime>

namespace flexkv {
namespace {

// The same on every architecture.
constexpr long setup_number = 425;
constexpr long enter_number = 426;
constexpr long register_number = 427;

int result_of(long value) { return value < 0 ? -errno : static_cast<int>(value); }

}  // namespace

int UringSyscalls::setup(unsigned entries, uring::Params& params) {
  return result_of(::syscall(setup_number, entries, &params));
}

int UringSyscalls::enter(int ring_fd, unsigned to_submit, unsigned min_complete, unsigned flags, const void* arg,
                         std::size_t arg_bytes) {
  return result_of(::syscall(enter_number, ring_fd, to_submit, min_complete, flags, arg, arg_bytes));
}

int UringSyscalls::register_(int ring_fd, unsigned opcode, const void* arg, unsigned num_args) {
  return result_of(::syscall(register_number, ring_fd, opcode, arg, num_args));
}

int UringSyscalls::poll(int fd, std::chrono::nanoseconds timeout) {
  constexpr std::int64_t ns_per_s = 1'000'000'000;
  pollfd polled = {fd, POLLIN, 0};
  const timespec limit = {timeout.count() / ns_per_s, timeout.count() % ns_per_s};
  return result_of(::ppoll(&polled, 1, &limit, nullptr));
}

}  // namespace flexkv
