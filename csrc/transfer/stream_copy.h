// stream_copy: memcpy whose stores go around the caches (non-temporal), with the widest stores the CPU has.
//
// The instruction set is chosen at run time (AVX-512, AVX2, SSE2); other architectures use memcpy. The processor's own
// prefetching ends at pages and begins anew at each piece, so the source is prefetched 8 KiB ahead, over the end of a
// piece into the next one. Non-temporal stores are weakly ordered: a thread that has stream-copied calls `stream_fence`
// before it tells another thread that it is done.
// Thread safety: functions only, any thread.
#pragma once
#include <cstddef>

namespace flexkv {

// `next`: where the source of the copy after this one begins; any address, also `src`, when there is none.
using StreamCopy = void (*)(std::byte* dst, const std::byte* src, std::size_t bytes, const std::byte* next);

// The best copy for this CPU. Any alignment; short ranges are plain copies. REQUIRES of it: ranges do not overlap.
[[nodiscard]] StreamCopy stream_copy();
// All copies that this CPU can run, best first; for tests. Returns how many.
[[nodiscard]] std::size_t stream_copies(StreamCopy (&out)[4]);
void stream_fence();

}  // namespace flexkv
