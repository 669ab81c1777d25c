// Pages of host memory, made present before somebody waits for them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace flexkv {

// Makes the pages of [begin, begin + bytes) present and writable without changing a byte. Returns 0 or an errno.
// REQUIRES: begin is the start of a page.
[[nodiscard]] int populate(std::byte* begin, std::uint64_t bytes);

}  // namespace flexkv
