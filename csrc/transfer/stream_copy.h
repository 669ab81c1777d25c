// stream_copy: memcpy whose stores go around the caches (non-temporal), with the widest stores the CPU has.
//
// The instruction set is chosen at run time (AVX-512, AVX2, SSE2); other architectures use memcpy. Non-temporal stores
// are weakly ordered: a thread that has stream-copied calls `stream_fence` before it tells another thread that it is
// done. Thread safety: functions only, any thread.
#pragma once
#include <cstddef>

namespace flexkv {

using StreamCopy = void (*)(std::byte* dst, const std::byte* src, std::size_t bytes);

// The best copy for this CPU. Any alignment; short ranges are plain copies. REQUIRES of it: ranges do not overlap.
[[nodiscard]] StreamCopy stream_copy();
// All copies that this CPU can run, best first; for tests.
[[nodiscard]] std::size_t stream_copies(StreamCopy (&out)[4]);
void stream_fence();

}  // namespace flexkv
