// Where each field lies in a record and in the header of the SSD tier's files, in bytes. docs/formats/ssd.md draws the
// same; tests/test_ssd_format_doc.py holds the two together. Numbers are little endian. Constants only.
#pragma once
#include <cstddef>
#include <cstdint>

namespace flexkv::ssd_layout {

struct Field {
  std::size_t offset;
  std::size_t bytes;
  [[nodiscard]] constexpr std::size_t end() const { return offset + bytes; }
};

namespace record {
inline constexpr Field key{0, 16};
inline constexpr Field parent{16, 16};
inline constexpr Field data_checksum{32, 8};
inline constexpr Field used_at_us{40, 7};
inline constexpr Field group_priority{47, 1};  // group in bits 0..4, priority in bits 5..7
inline constexpr Field tenant{48, 2};
inline constexpr Field life{50, 2};  // the lowest 16 bits of the store id
inline constexpr Field expiry_s{52, 4};
inline constexpr Field checksum{56, 8};
}  // namespace record

namespace header {
inline constexpr Field magic{0, 8};
inline constexpr Field version{8, 4};
inline constexpr Field record_bytes{12, 4};
inline constexpr Field store_id{16, 16};
inline constexpr Field num_slots{32, 8};
inline constexpr Field tokens_per_block{40, 4};
inline constexpr Field num_extents{44, 4};
inline constexpr Field extent_bytes{48, 512};  // 64 numbers of 8 bytes; those beyond num_extents are zero
inline constexpr Field model_bytes{560, 4};
inline constexpr Field model{564, 1024};
inline constexpr Field reserved{1588, 2492};  // zero
inline constexpr Field magic_again{4080, 8};
inline constexpr Field checksum{4088, 8};
}  // namespace header

inline constexpr std::uint64_t magic_number = 0x445353564b584c46;  // "FLXKVSSD" as it lies in the file
inline constexpr std::size_t max_extents = header::extent_bytes.bytes / 8;
inline constexpr std::size_t sector_bytes = 512;  // what a device writes whole or not at all

}  // namespace flexkv::ssd_layout
