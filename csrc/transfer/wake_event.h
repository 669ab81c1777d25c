// WakeEvent: wakes one thread that sleeps in poll or epoll. An eventfd; signals add up until drained.
// Thread safety: signal from any thread; drain by the sleeper.
#pragma once
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

#include "transfer/os_error.h"
#include "transfer/socket.h"

namespace flexkv {

class WakeEvent {
 public:
  WakeEvent() : fd_(::eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC)) {
    if (!fd_.valid()) throw_errno(errno, "eventfd");
  }

  [[nodiscard]] int fd() const { return fd_.get(); }

  void signal() const {
    const std::uint64_t one = 1;
    // It can only fail when 2^64 - 2 signals wait, and then the sleeper is awake.
    [[maybe_unused]] const ssize_t written = ::write(fd_.get(), &one, sizeof(one));
  }

  void drain() const {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t taken = ::read(fd_.get(), &count, sizeof(count));
  }

 private:
  Fd fd_;
};

}  // namespace flexkv
