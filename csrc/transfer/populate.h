// Pages of host memory, made present before somebody waits for them.
#pragma once
#include <cstddef>
#include <cstdint>

namespace flexkv {

// Makes the pages of [begin, begin + bytes) present and writable without changing a byte. Returns 0 or an errno: EINVAL
// also where the kernel cannot do that (before 5.14).
[[nodiscard]] int try_populate(std::byte* begin, std::uint64_t bytes);

// The same where the kernel cannot, too; then by touching the pages, which ends the process where there is no memory.
[[nodiscard]] int populate(std::byte* begin, std::uint64_t bytes);

}  // namespace flexkv
