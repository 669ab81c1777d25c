// Letting the GIL go around native work. nanobind's own guard takes it back in a destructor, through which Python
// before 3.14 unwinds a daemon thread when the interpreter ends: a destructor may not be unwound, and the unwinder that
// does it need not be the one that a C++ library of ours brought along. So no frame of ours is (restore_thread.h).
#pragma once
#include <Python.h>
#include <nanobind/nanobind.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "bindings/restore_thread.h"
#include "transfer/timeout.h"

namespace flexkv {

class GilRelease {
 public:
  GilRelease() : thread_(PyEval_SaveThread()) {}
  ~GilRelease() { restore_thread_or_end(thread_); }
  GilRelease(const GilRelease&) = delete;
  GilRelease& operator=(const GilRelease&) = delete;

 private:
  PyThreadState* thread_;
};

// What takes the GIL back when a DestroyedWithoutGil is no more.
class GilReturn {
 protected:
  std::optional<GilRelease> release_;
};

// A T, to be bound in its place, whose destructor waits for threads or peers: Python runs on meanwhile. The bases are
// destroyed from the last to the first, so that ~T runs between letting the GIL go and taking it back. REQUIRES: ~T
// lets no Python object go.
template <typename T>
class DestroyedWithoutGil final : private GilReturn, public T {  // NOLINT(misc-multiple-inheritance): for its order
 public:
  using T::T;
  // NOLINTNEXTLINE(modernize-use-override,cppcoreguidelines-explicit-virtual-functions): T's need not be virtual
  ~DestroyedWithoutGil() { release_.emplace(); }
  DestroyedWithoutGil(const DestroyedWithoutGil&) = delete;
  DestroyedWithoutGil& operator=(const DestroyedWithoutGil&) = delete;
};

// Calls `wait(seconds)`, which returns whether what it waits for is there, slice by slice until it is, the time is
// over, or it gives up early. In between Python's signal handlers run, so that Ctrl-C comes through. The caller holds
// the GIL.
template <typename Wait>
bool wait_interruptibly(double timeout_s, const Wait& wait) {
  using Clock = std::chrono::steady_clock;
  using Seconds = std::chrono::duration<double>;
  constexpr double slice_s = 0.05;
  const Seconds timeout = bounded_timeout(timeout_s);
  const auto begin = Clock::now();
  for (;;) {
    const auto slice_begin = Clock::now();
    const double left_s = (timeout - (slice_begin - begin)).count();
    const double wait_s = std::clamp(left_s, 0.0, slice_s);
    bool done = false;
    {
      const GilRelease release;
      done = wait(wait_s);
    }
    if (PyErr_CheckSignals() != 0) throw nanobind::python_error();
    const bool gave_up = Seconds(Clock::now() - slice_begin).count() < wait_s;
    if (done || gave_up || left_s <= slice_s) return done;
  }
}

}  // namespace flexkv
