// CRC-64/NVME (polynomial 0xad93d23594c93659, reflected, all-ones in and out; check value of "123456789":
// 0xae8b14860a799888), as the NVM Express command set specification defines it. Carry-less multiplication where the CPU
// has it (VPCLMULQDQ with AVX-512 or AVX2, PCLMULQDQ), chosen at run time; the portable path gives the same numbers.
// Pure, thread-safe.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace flexkv {

// The CRC of `data`; `previous` is that of what comes before it: crc64(b, crc64(a)) is that of a followed by b.
[[nodiscard]] std::uint64_t crc64(std::span<const std::byte> data, std::uint64_t previous = 0);

[[nodiscard]] const char* crc64_implementation();  // "vpclmulqdq-512", "vpclmulqdq-256", "pclmulqdq" or "portable"

}  // namespace flexkv
