// Starting native threads: named, and with all signals blocked, so that the interpreter's handlers keep running in its
// own threads.
#pragma once
#include <pthread.h>

#include <csignal>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

namespace flexkv {

// `name` has at most 15 characters. Throws std::system_error when no thread can be had.
[[nodiscard]] inline std::thread start_native_thread(const char* name, std::function<void()> body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);  // inherited by the new thread
  const auto restore = [](const sigset_t* mask) { pthread_sigmask(SIG_SETMASK, mask, nullptr); };
  const std::unique_ptr<const sigset_t, decltype(restore)> restored(&before, restore);
  std::thread thread(std::move(body));
  pthread_setname_np(thread.native_handle(), name);
  return thread;
}

}  // namespace flexkv
