// stream_copy: memcpy whose stores go around the caches (non-temporal), of one piece or of two in turns.
//
// Two pieces in turns are faster than one after the other: where a piece ends, the memory needs a while to begin
// another one (page walks, prefetching anew), and the other piece goes on meanwhile. The source is prefetched 4 KiB
// ahead, over the end of a piece into the next one. Stores of 16 bytes, which every x86-64 has, fill lines as fast as
// wider ones do here; other architectures use memcpy. Non-temporal stores are weakly ordered: a thread that has
// stream-copied calls `stream_fence` before it tells another thread that it is done. Thread safety: functions only, any
// thread.
#pragma once
#include <cstddef>

namespace flexkv {

inline constexpr std::size_t line_bytes = 64;  // of the caches

// Any alignment. REQUIRES: what is written overlaps nothing else that is read or written.
struct StreamPiece {
  std::byte* dst;
  const std::byte* src;
  std::size_t bytes;
  const std::byte* next;  // the source that is read after this one; any address, also `src`, when there is none
};

void stream_copy(const StreamPiece& piece);
void stream_copy_two(const StreamPiece& a, const StreamPiece& b);
void stream_fence();

}  // namespace flexkv
